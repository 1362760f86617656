"""What the model and the callbacks ask of their data: a data module is whatever answers this, of text or of a task.

Data        what everybody asks: the tokenizer, how long a sample is, what a step holds
TextData    what is asked of text alone: stretches of it at other lengths, baselines on it
TaskData    what is asked of a recall task alone: its phases and its held-out prompts
"""

from collections.abc import Iterator
from typing import Protocol, cast

import numpy as np
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from lightning_metatok.data import Batch, DataConfig, InjectionRule, MetaTokenizer, TokenStore
from lightning_metatok.data.examples import Examples
from lightning_metatok.data.scored import ScoredText
from lightning_metatok.tasks import Task
from lightning_metatok.tasks.curriculum import Schedule
from lightning_metatok.tasks.stream import Counts


class Data(Protocol):
    """What text and tasks have in common; a sample is a block or a prompt.

    Attributes:
        config: the text, and the objective.
        tokenizer: from `prepare_data` on.
        seed: of the samples, and of whatever else is drawn in training.
        batch_size: samples in a micro-batch on one device.
        separate_documents: whether documents of one block do not see each other.
        scores_answers_only: whether a few tokens of a sample are scored, the answers, and all else is given.
        contiguous: whether, in training, a row of a batch goes on where the same row of the batch before ended.
    """

    config: DataConfig
    tokenizer: MetaTokenizer
    seed: int
    batch_size: int
    separate_documents: bool
    scores_answers_only: bool
    contiguous: bool

    @property
    def title(self) -> str:
        """The corpus or the task, as it is written down."""

    @property
    def placement(self) -> str:
        """Where meta-tokens stand."""

    @property
    def usual_placement(self) -> str:
        """The placement that goes without saying."""

    @property
    def coupled(self) -> bool:
        """Whether position ids are those of a task, not 0, 1, 2, ..."""

    @property
    def block_length(self) -> int:
        """Tokens of the longest sample."""

    @property
    def n_positions(self) -> int:
        """Positions that the longest sample needs."""

    @property
    def mean_length(self) -> float:
        """Tokens of a sample, meta-tokens included, on average."""

    @property
    def marks_per_prompt(self) -> float:
        """Meta-tokens of a sample, on average."""

    @property
    def meta_share(self) -> float:
        """Share of meta-tokens among the tokens."""

    @property
    def scored_per_prompt(self) -> float:
        """Positions of a sample that logits are computed at, on average."""

    def counts(self, micro_step: int) -> Counts:
        """Return what the batches of a step hold on all ranks together; asked once it was made."""

    def begins_anew(self, micro_step: int) -> bool:
        """Return whether the rows of this step do not go on where those of the one before ended."""

    def too_long(self, limit: int) -> str:
        """Return what to say of samples longer than a table of `limit` positions."""

    def scored_text(self) -> ScoredText:
        """Return what the validation loss is measured on, whatever meta-tokens stand between."""

    def trained_text(self, windows: int) -> ScoredText:
        """Return what the first `windows` samples of training are scored on, in their order."""


class TextData(Data, Protocol):
    """Blocks of text.

    Attributes:
        block_size: tokens of a block, T.
        rule: where meta-tokens go.
        store: the prepared streams of tokens.
    """

    block_size: int
    rule: InjectionRule
    store: TokenStore

    @property
    def can_test(self) -> bool:
        """Whether there is text that nothing is chosen by."""

    def test_dataloader(self) -> DataLoader:
        """Blocks of that text."""

    def scored_pairs(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Of every validation block the source tokens that models are scored on, and the one before each."""

    def training_tokens(self, most: int) -> NDArray[np.unsignedinteger]:
        """Return the first tokens that are trained on, `most` or fewer, in the order of the text."""

    def context_batches(self, multiple: int, *, windows: int, largest: int) -> list[Batch]:
        """Validation batches of blocks `multiple` times as long, over the same text for every `multiple`."""


class TaskData(Data, Protocol):
    """Prompts of a recall task, in the phases of a curriculum.

    Attributes:
        tasks: of each phase.
        schedule: which phase a step is in.
        test_examples, validation_examples: held-out prompts.
    """

    tasks: tuple[Task, ...]
    schedule: Schedule
    test_examples: int
    validation_examples: int

    def evaluation_task(self, multiple: float = 1.0) -> Task:
        """The target at `multiple` times the largest trained length. UserError where it cannot be so long."""

    def evaluation_examples(self, multiple: float = 1.0, n: int = 1000) -> Examples:
        """The first `n` held-out prompts of that task; the same at every call."""

    def phase_examples(self, phase: int, n: int = 1000) -> Examples:
        """Return `n` held-out prompts of a phase, with one question each, always the same."""


def data_of(trainer: Trainer) -> Data:
    """Return the data that a trainer was given."""
    return cast(Data, trainer.datamodule)  # type: ignore[attr-defined]


def text_of(trainer: Trainer) -> TextData:
    """Return the same, where it is text."""
    return cast(TextData, trainer.datamodule)  # type: ignore[attr-defined]


def task_of(trainer: Trainer) -> TaskData:
    """Return the same, where it is a task."""
    return cast(TaskData, trainer.datamodule)  # type: ignore[attr-defined]
