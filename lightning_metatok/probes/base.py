"""What a probe is: a question to a trained model, whose answer is a table and a figure.

    class Cosine(Probe):
        name = "cosine"                                  # RUN/probe/cosine.csv, --probe.cosine.layers=[0,1]
        def __init__(self, layers: list[int] | None = None) -> None: ...
        def check(self, subject: Subject) -> None: ...   # a UserError before any probe has run
        def run(self, subject: Subject) -> list[Finding]: ...

A probe reads: it leaves the model as it was, has no state, and draws random numbers from `Subject.seed` alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import torch
from matplotlib.figure import Figure
from pandas import DataFrame
from torch import Tensor

from lightning_metatok.data import Batch
from lightning_metatok.data.examples import Examples
from lightning_metatok.errors import UserError
from lightning_metatok.lit.data.task import TaskDataModule
from lightning_metatok.lit.data.text import MetaTokenDataModule
from lightning_metatok.lit.module import MetaTokenLM
from lightning_metatok.model import MetaTransformer, TransformerConfig


@dataclass(frozen=True)
class Finding:
    """One table and the figure that shows it.

    Attributes:
        name: of the files `NAME.csv` and `NAME.png`; the probe's name, or that and `_` and more.
        table: what was measured, one row a case, everything that the figure shows in it.
        figure: at 150 dpi; its title says the finding.
        says: the finding in one line, for the table that closes the verb.
    """

    name: str
    table: DataFrame
    figure: Figure
    says: str = ""


@dataclass(frozen=True)
class Subject:
    """What probes ask: a trained model and the prompts or blocks of its data.

    Attributes:
        module: in eval mode on `device`.
        data: its data module, set up.
        batches: held-out batches on `device`, the same for every probe, `n_examples` rows altogether.
        examples: the same prompts in the same order with their flags (where segments, answers and marks are); None
            for text.
        device, seed, n_examples: where the model is, what random choices follow from, how many rows there are.
        label: short name of the run, for titles.
        progress: called with (what, done, total) by probes that take longer than seconds.
    """

    module: MetaTokenLM
    data: TaskDataModule | MetaTokenDataModule
    batches: Sequence[Batch]
    examples: Examples | None
    device: torch.device
    seed: int
    n_examples: int
    label: str = "model"
    progress: Callable[[str, int, int], None] = field(default=lambda what, done, total: None)

    @property
    def model(self) -> MetaTransformer:
        """The transformer in the module."""
        return self.module.model

    @property
    def config(self) -> TransformerConfig:
        """Its shape."""
        return self.module.config

    @cached_property
    def has_meta_tokens(self) -> bool:
        """Whether the batches hold any meta-token."""
        return any(bool(batch.meta_mask_BT.any()) for batch in self.batches)

    def forward(self, batch: Batch, *, return_hidden: bool = False) -> Tensor:
        """Logits [B, T, V] of a batch as the module computes them for its loss; or its hidden states [B, T, D]."""
        separate = self.module.separate_documents
        logits: Tensor = self.model(
            batch.tokens_BT,
            batch.meta_mask_BT,
            batch.position_ids_BT,
            batch.document_ids_BT if separate else None,
            return_hidden=return_hidden,
        )
        return logits

    # -- what probes refuse

    @property
    def prompts(self) -> Examples:
        """The examples, for a probe that `needs_task`."""
        assert self.examples is not None, "the probe does not say that it needs a task"
        return self.examples

    def need_examples(self, probe: str, least: int, why: str = "an interval") -> None:
        """Raise UserError where there are fewer than `least` rows."""
        if self.n_examples < least:
            raise UserError(f"--examples={self.n_examples}: probe.{probe} expected at least {least} for {why}")

    def need_layers(self, probe: str, layers: Sequence[int] | None) -> list[int]:
        """Return `layers`, all of them where None; raise UserError where one does not exist."""
        return _existing(probe, "layers", layers, self.config.n_layers)

    def need_heads(self, probe: str, heads: Sequence[int] | None) -> list[int]:
        """Return `heads`, all of them where None; raise UserError where one does not exist."""
        return _existing(probe, "heads", heads, self.config.n_heads)


def _existing(probe: str, key: str, chosen: Sequence[int] | None, there_are: int) -> list[int]:
    if chosen is None:
        return list(range(there_are))
    for number in chosen:
        if not 0 <= number < there_are:
            raise UserError(
                f"probe.{probe}.{key}={list(chosen)}: no {key.removesuffix('s')} {number}; "
                f"expected numbers from 0 to {there_are - 1}"
            )
    if not chosen or len(set(chosen)) < len(chosen):
        raise UserError(f"probe.{probe}.{key}={list(chosen)}: expected different numbers, one at least")
    return list(chosen)


class Probe(ABC):
    """A question to a trained model. Its constructor's arguments are the options `probe.NAME.*`."""

    name: ClassVar[str]
    question: ClassVar[str] = ""
    """For the table of probes (docs/tables.py); "": the class's first line."""
    intervenes: ClassVar[bool] = False
    """Whether it changes something inside, and asks again."""
    needs_meta_tokens: ClassVar[bool] = False
    needs_task: ClassVar[bool] = False
    """Whether it asks about answers, not about any text."""

    def check(self, subject: Subject) -> None:  # noqa: B027  (a probe without options need not)
        """Refuse options that do not fit the subject.

        All probes are checked before the first one runs, so that nothing is left half done.

        Raises:
            UserError: one line that names the option.
        """

    def cannot(self, subject: Subject) -> str | None:
        """Why this probe has nothing to ask here whatever its options, in one line; None: it has.

        A probe that was asked for by name is then an error; where all are asked, it is left out, and that is said.
        """
        if self.needs_meta_tokens and not subject.has_meta_tokens:
            return "the data of this checkpoint have no meta-tokens; expected a checkpoint that was trained with some"
        if self.needs_task and subject.examples is None:
            return "it asks about answers, and this checkpoint was trained on text; expected one of a recall task"
        return None

    @abstractmethod
    def run(self, subject: Subject) -> list[Finding]:
        """Ask."""
