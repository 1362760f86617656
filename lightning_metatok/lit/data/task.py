"""TaskDataModule: prompts of a recall task, with the curriculum they are trained in, for Lightning.

    train        the examples of each step, by `tasks.stream`: endless, or a finite set again and again
    validation   held-out prompts of the target (the last phase), one question each
    test         others of the same kind

A batch is a pure function of (seed, step, rank, phase), and the phase of a step one of `tasks.curriculum.Schedule`, so
that any number of workers gives the same batches and a run may go on at any step.
"""

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from lightning_metatok.data import DataConfig, MetaTokenizer, TokenStore
from lightning_metatok.data.cache import cache_folder
from lightning_metatok.data.examples import ANSWER, META, Examples
from lightning_metatok.data.kinds import check_kinds, check_used
from lightning_metatok.data.scored import ScoredText, scored_text, windows_of_examples
from lightning_metatok.errors import UserError, nearest
from lightning_metatok.lit.data.held_out import APART, HeldOut, counting_bar
from lightning_metatok.lit.data.loaders import OnceEach, StepLoader, once_each
from lightning_metatok.lit.data.phases import rendering_of, task_of_phase
from lightning_metatok.lit.data.protocol import TaskData
from lightning_metatok.lit.data.wording import read_text
from lightning_metatok.lit.micro_steps import next_micro_step
from lightning_metatok.tasks import TASKS, Task, read_symbols, symbol_tokenizer
from lightning_metatok.tasks.curriculum import Schedule, read_phases
from lightning_metatok.tasks.sets import prepared_examples
from lightning_metatok.tasks.stream import Counts, EndlessSource, ExampleSource, FiniteSource, Windows, count

SAMPLE = 512
"""Examples that lengths and shares are measured on."""


class TaskDataModule(LightningDataModule):
    """A recall task becomes prompts with marks; only their answers are scored."""

    scores_answers_only, contiguous = True, False
    separate_documents = False
    usual_placement = "hint"

    def __init__(
        self,
        task: str,
        task_options: dict[str, Any] | None = None,
        meta_placement: str = "hint",
        meta_fraction: float = 0.1,
        meta_kinds: int = 1,
        batch_size: int = 64,
        train_examples: int | None = 90_000,
        test_examples: int = 10_000,
        validation_examples: int = 1000,
        curriculum: list[dict[str, Any]] | None = None,
        seed: int = 1337,
        num_workers: int = 0,
        **corpus: Any,
    ) -> None:
        """Describe the data; nothing is made yet.

        Args:
            task: Name of the task, such as list_recall (docs/recall.md has them all), or the dotted path of a class.
            task_options: Options of the task: rendering (symbols or text), level, sizes, question_mark (none,
                before_answer or after_key), coupled (position ids).
            meta_placement: Where meta-tokens go: hint (around the segment asked about), every (around each segment),
                after (behind each), random or none.
            meta_fraction: Share of meta-tokens in the body of a prompt, for meta_placement=random; 0 means no
                meta-tokens, whatever the placement.
            meta_kinds: Kinds of meta-tokens, each with an embedding of its own: the i-th of a prompt has kind i mod n.
            batch_size: Prompts in a micro-batch on one device.
            train_examples: Prompts to train on, split evenly over the phases; null: new ones without end.
            test_examples: Held-out prompts for the verb test.
            validation_examples: Other held-out prompts, for validation.
            curriculum: Phases, each {options: {...}, steps: N, accuracy: A}: it ends after N optimiser steps, or when
                the share A of held-out prompts is answered exactly. The last phase has no end and is the target.
            seed: Seed of the training prompts and of their order.
            num_workers: Processes that make prompts; any number gives the same batches.
            corpus: The fields of DataConfig, for rendering text: its tokenizer, and the text that needles hide in.
        """
        super().__init__()
        self.config = DataConfig(**corpus)
        if self.config.masked:
            raise UserError("data.objective='masked': expected next with data.task, whose answers alone are scored")
        for name, value in (
            ("batch_size", batch_size),
            ("train_examples", train_examples),
            ("test_examples", test_examples),
            ("validation_examples", validation_examples),
        ):
            if value is not None and value < 1:
                raise UserError(f"data.{name}={value}: expected a positive number")
        if num_workers < 0:
            raise UserError(f"data.num_workers={num_workers}: expected 0 or more")
        if not 0 <= meta_fraction <= 0.5:
            raise UserError(f"data.meta_fraction={meta_fraction}: expected a share between 0 and 0.5")
        check_kinds(meta_kinds)
        placements = TASKS.resolve(task).placements
        if meta_placement not in placements:
            raise UserError(
                f"data.meta_placement={meta_placement}: expected one of {', '.join(placements)}"
                f"{nearest(meta_placement, placements)}"
            )
        self.task_name, self.options = task, dict(task_options or {})
        self.meta_kinds = meta_kinds
        self.meta_placement, self.meta_fraction = meta_placement, meta_fraction
        self.batch_size, self.train_examples = batch_size, train_examples
        self.test_examples, self.validation_examples = test_examples, validation_examples
        self.seed, self.num_workers = seed, num_workers
        self.schedule = Schedule(read_phases(curriculum))
        if train_examples is not None and train_examples < len(self.schedule.phases):
            raise UserError(f"data.train_examples={train_examples}: expected at least one for each phase")
        self.carried: MetaTokenizer | None = None
        """Tokenizer of a checkpoint, which text is rendered with where `data.tokenizer` names none."""
        self.tokenizer: MetaTokenizer
        self.tasks: tuple[Task, ...] = ()
        self._store: TokenStore | None = None
        self._sources: list[ExampleSource] = []
        self._held_out = HeldOut(cache_folder(self.config.cache_dir))
        self._counts: dict[int, Counts] = {}
        self._longest = self._n_positions = 0

    @property
    def rendering(self) -> str:
        """Words as `symbols` or as `text`."""
        return rendering_of(self.options)

    # -- preparation

    def prepare_data(self) -> None:
        """Find the tokenizer, prepare the text for needles, and build the task of each phase."""
        if self.tasks:
            return
        if self.rendering == "text":
            needs_text = TASKS.resolve(self.task_name).needs_haystack
            self.tokenizer, self._store = read_text(self.config, self.carried, needs_text=needs_text)
        else:
            self.tokenizer = symbol_tokenizer(*read_symbols(self.options.get("symbols")))
        self.tokenizer = self.tokenizer.with_kinds(self.meta_kinds)
        self.tasks = tuple(
            task_of_phase(
                phase,
                number,
                name=self.task_name,
                options=self.options,
                placement=self.meta_placement,
                fraction=self.meta_fraction,
                tokenizer=self.tokenizer,
                haystack=self._store,
            )
            for number, phase in enumerate(self.schedule.phases)
        )

    def setup(self, stage: str) -> None:
        """Make what `stage` needs, and a window of each phase: what cannot work comes to light now.

        Raises:
            UserError: options that cannot work, prompts that do not fit their bin, too few different contents.
        """
        self.prepare_data()
        self._measure(self._validation())
        check_used(self.meta_kinds, int(count(self._validation(), META).max()), "a prompt")
        if stage == "fit" and not self._sources:
            self._sources = [self._source(phase) for phase in range(len(self.tasks))]
        if stage == "test":
            self._measure(self._test())

    def _measure(self, examples: Examples) -> None:
        self._longest = max(self._longest, int(examples.lengths.max()))
        self._n_positions = max(self._n_positions, examples.n_positions)

    def _source(self, phase: int) -> ExampleSource:
        task = self.tasks[phase]
        if task.limits is not None:
            self._longest = max(self._longest, task.limits[1])
        if self.train_examples is None:
            endless = EndlessSource(task, self.seed, start=phase * APART)
            self._measure(endless.samples(np.arange(SAMPLE)))
            return endless
        n = self.train_examples // len(self.tasks)
        with counting_bar() as progress:
            folder = prepared_examples(
                task, n, self.seed, "train", cache_folder(self.config.cache_dir), start=phase * APART, progress=progress
            )
        finite = FiniteSource(folder, self.seed)
        self._measure(finite.examples)
        return finite

    def _validation(self) -> Examples:
        return self._held_out.validation(self.target, self.validation_examples)

    def _test(self) -> Examples:
        return self._held_out.test(self.target, self.test_examples)

    # -- what others ask

    @property
    def target(self) -> Task:
        """The task of the last phase, which runs are judged by."""
        return self.tasks[-1]

    def evaluation_task(self, multiple: float = 1.0) -> Task:
        """Return the target with one question a prompt, at `multiple` times the largest trained length.

        Raises:
            UserError: the task has no such sizes.
        """
        return self.target.asking_once().longer(multiple)

    def evaluation_examples(self, multiple: float = 1.0, n: int = 1000) -> Examples:
        """Return `n` held-out prompts of `evaluation_task(multiple)`, always the same. Raises as that does."""
        return self._held_out.evaluation(self.evaluation_task(multiple), multiple, n)

    def phase_examples(self, phase: int, n: int = 1000) -> Examples:
        """Return `n` held-out prompts of `phase`, with one question each, always the same."""
        return self._held_out.phase(self.tasks[phase], phase, n)

    @property
    def title(self) -> str:
        """The task."""
        return self.target.name

    @property
    def placement(self) -> str:
        """Where marks stand in prompts of the target."""
        return self.target.placement

    @property
    def block_length(self) -> int:
        """Tokens of the longest prompt; for prompts without end that no bin bounds, the longest of those seen."""
        return self._longest

    @property
    def coupled(self) -> bool:
        """Whether all prompts have position ids of their task."""
        return all(task.coupled for task in self.tasks)

    @property
    def n_positions(self) -> int:
        """Positions that the longest prompt needs: its tokens, or as many as its task's ids reach."""
        return self._n_positions if self.coupled else self.block_length

    @property
    def mean_length(self) -> float:
        """Tokens of a training prompt of the target, marks included, on average."""
        return float(self._sample.lengths.mean())

    @property
    def marks_per_prompt(self) -> float:
        """Meta-tokens in a training prompt of the target, on average."""
        return float(count(self._sample, META).mean())

    @property
    def meta_share(self) -> float:
        """Share of meta-tokens among the tokens of the target's training prompts."""
        return self.marks_per_prompt / self.mean_length

    @property
    def scored_per_prompt(self) -> float:
        """Tokens of an answer of the target, on average."""
        return float(count(self.target.examples(SAMPLE, self.seed), ANSWER).mean())

    @cached_property
    def _sample(self) -> Examples:
        if self._sources:
            return self._sources[-1].samples(np.arange(SAMPLE))
        return self.target.examples(SAMPLE, self.seed)

    def scored_text(self) -> ScoredText:
        """What the validation loss is measured on: the held-out prompts without marks, and their answers."""
        return scored_text(windows_of_examples(self._validation()), self.tokenizer.bytes_V)

    def trained_text(self, windows: int) -> ScoredText:
        """The first `windows` training prompts of the target, without marks."""
        some = self._sample.take(np.arange(min(windows, len(self._sample))))
        return scored_text(windows_of_examples(some), self.tokenizer.bytes_V)

    def begins_anew(self, micro_step: int) -> bool:
        """Every prompt does."""
        return True

    def too_long(self, limit: int) -> str:
        """What to say of prompts longer than a table of `limit` positions."""
        if self.coupled:
            what = f"position ids up to {self.n_positions - 1} reach beyond"
        else:
            what = f"prompts of up to {self.block_length} tokens are longer than"
        return (
            f"data.task={self.task_name}: {what} the table of positions, model.max_positions={limit}; "
            "expected at most that, or model.position=rotary"
        )

    def summary(self) -> str:
        """The data in one line."""
        there_are = "endless" if self.train_examples is None else f"{self.train_examples:,}"
        phases = f" in {len(self.tasks)} phases" if len(self.tasks) > 1 else ""
        return (
            f"{self.task_name} in {self.rendering}, marks: {self.target.placement}, {there_are} prompts{phases}, "
            f"{self.mean_length:.0f} tokens each at the end (longest {self.block_length}), "
            f"{self.tokenizer.vocab_size:,} ids"
        )

    def counts(self, micro_step: int) -> Counts:
        """Return what the batches of a step hold on all ranks together, known since the batch was made."""
        return self._counts[micro_step]

    def state_dict(self) -> dict[str, Any]:
        """The steps at which phases began, for checkpoints."""
        return {"begun": list(self.schedule.begun)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the steps of a checkpoint of the same number of phases."""
        if len(state_dict["begun"]) == len(self.schedule.begun):
            self.schedule.begun = list(state_dict["begun"])

    # -- loaders

    def train_dataloader(self) -> StepLoader:
        """Batches without end, from the step that the trainer stands at."""
        trainer = self.trainer
        assert trainer is not None
        every = trainer.accumulate_grad_batches
        windows = [
            Windows(source, self.seed, self.batch_size, trainer.global_rank, trainer.world_size)
            for source in self._sources
        ]
        first = partial(next_micro_step, trainer)
        return StepLoader(windows, self.schedule, first, every, self.num_workers, self._counts)

    def val_dataloader(self) -> DataLoader:
        """The validation prompts, each once."""
        return self._once_each(self._validation())

    def test_dataloader(self) -> DataLoader:
        """The test prompts, each once."""
        return self._once_each(self._test())

    def predict_dataloader(self) -> DataLoader:
        """The validation prompts."""
        return self._once_each(self._validation())

    def _once_each(self, examples: Examples) -> DataLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return once_each(OnceEach(examples, self.batch_size, rank, world_size))


if TYPE_CHECKING:
    IS_A_TASK: type[TaskData] = TaskDataModule
