"""AnswerStudy: asks a trained model what the ablations beside it want to know, each question once, and reports.

    LengthGeneralisation ─┐                        table
    AnswerPositionAblation┼─> (condition, length) ─> answers.csv, slices.csv
    EmbeddingAblation     ┤    asked once           scalars answers/<condition>_<length>x, answer_tokens/...
    PlacementAblation     ┘                        answers_by_length.png, answers_by_place.png, answers_errors.png

The undisturbed prompts of a length are asked once for all ablations, and everything else is compared with them.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from lightning_metatok.console import printer
from lightning_metatok.data.examples import META, Examples
from lightning_metatok.errors import UserError
from lightning_metatok.files import write_atomically
from lightning_metatok.lit.ablations.answer_ablation import (
    MOST_PROMPTS,
    SHARE,
    AnswerAblation,
    prompts_for,
    prompts_seen,
)
from lightning_metatok.lit.ablations.length_generalisation import LengthGeneralisation
from lightning_metatok.lit.answers.ask import Answers, ask
from lightning_metatok.lit.answers.conditions import FULL, MarkCondition
from lightning_metatok.lit.answers.figures import error_figure, length_figure, place_figure
from lightning_metatok.lit.answers.report import (
    AnswerCell,
    Slice,
    make_cell,
    make_slices,
    print_answers,
    to_csv,
)
from lightning_metatok.lit.callbacks.progress import progress_of
from lightning_metatok.lit.data.protocol import data_of, task_of
from lightning_metatok.lit.run.loggers import log_folder, show_figure
from lightning_metatok.lit.run.stopping import LOST_IN_VALIDATION, heed
from lightning_metatok.model import TransformerConfig


class AnswerStudy(Callback):
    """Ask at the end of training and of `test`; in training, too, where `LengthGeneralisation` says so.

    Attributes:
        cells: of the last study, one a condition and length.
        slices: the same by groups of prompts.
    """

    def __init__(self) -> None:
        self.cells: list[AnswerCell] = []
        self.slices: list[Slice] = []
        self._asked: dict[float, tuple[Examples, Answers]] = {}
        self._validations = 0
        self._told: set[str] = set()

    def state_dict(self) -> dict[str, int]:
        """Validations so far: a resumed run goes on counting."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on counting."""
        self._validations = state_dict["validations"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse data without questions."""
        if not data_of(trainer).scores_answers_only:
            raise UserError("trainer.callbacks: AnswerStudy asks about a task; expected data.task=<name>")

    # -- when

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask the undisturbed prompts where an ablation wants it at this validation."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._validations += 1
        due = [
            ablation
            for ablation in _ablations(trainer)
            if isinstance(ablation, LengthGeneralisation)
            and ablation.every_n_validations is not None
            and self._validations % ablation.every_n_validations == 0
        ]
        if due:
            self._study(trainer, pl_module, due)
            self._log(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask and write; not at the end of the fit, because the model has left its device by then."""
        self._study_and_write(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print."""
        self._print(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask, write and print."""
        self._study_and_write(trainer, pl_module)
        self._print(trainer)

    # -- what

    def _study_and_write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._study(trainer, pl_module, _ablations(trainer))
        if self.cells and trainer.is_global_zero:
            self._log(trainer)
            self._write(trainer)

    def _study(self, trainer: Trainer, pl_module: LightningModule, ablations: Sequence[AnswerAblation]) -> None:
        """Ask everything that `ablations` want; all ranks together."""
        self.cells, self.slices, self._asked = [], [], {}
        data = task_of(trainer)
        parts = self._plan(trainer, pl_module, ablations)
        with progress_of(trainer, "answers", sum(part.work for part in parts)) as move:
            for part in parts:
                try:
                    examples = data.evaluation_examples(part.multiple, part.n)
                except UserError as error:
                    self._leave_out(trainer, f"{part.multiple:g}x: {error}")
                    continue
                for condition in part.conditions:
                    self._heed(trainer, together=True)
                    self._ask(trainer, pl_module, condition, part, examples, move)
                    if part.multiple not in self._asked or not ((examples.flags & META) > 0).any():
                        break  # nothing to compare with, or nothing to change

    def _plan(self, trainer: Trainer, pl_module: LightningModule, ablations: Sequence[AnswerAblation]) -> list["_Part"]:
        """What is asked at each length, in order; how many prompts is said where no option says it."""
        data = task_of(trainer)
        config: TransformerConfig = pl_module.model.config  # type: ignore[assignment, union-attr]
        follows = prompts_for(trainer)
        parts = []
        for multiple in sorted({multiple for ablation in ablations for multiple in ablation.multiples}):
            here = [ablation for ablation in ablations if multiple in ablation.multiples]
            n = max(ablation.n or follows for ablation in here)
            conditions = []
            with suppress(UserError):  # it cannot be so long, which is said in its turn
                placement = data.evaluation_task(multiple).placement
                conditions = [FULL, *(c for ablation in here for c in ablation.conditions(config, placement))]
            parts.append(_Part(multiple, n, list(dict.fromkeys(conditions))))
        if parts and follows < MOST_PROMPTS and any(ablation.n is None for ablation in ablations):
            self._say_once(
                trainer,
                f"answers: {follows} prompts a condition, as this run saw {prompts_seen(trainer):,} in training; "
                f"{MOST_PROMPTS:,} from {MOST_PROMPTS * SHARE:,} on, or with --lengths.n={MOST_PROMPTS} and the like",
            )
        return parts

    def _heed(self, trainer: Trainer, *, together: bool = False) -> None:
        in_training = trainer.validating
        lost = LOST_IN_VALIDATION if in_training else "the answers behind the last step are asked anew"
        if trainer.state.fn == "fit":
            heed(trainer, lost, together=together and not in_training)

    def _ask(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        condition: MarkCondition,
        part: "_Part",
        examples: Examples,
        move: Callable[[float, str], None],
    ) -> None:
        multiple = part.multiple
        changed = condition.change(examples, task_of(trainer).tokenizer.meta_ids)
        where = f"{condition.label} at {multiple:g}x"
        if condition.marks is not None and np.array_equal(changed.tokens, examples.tokens):
            self._leave_out(trainer, f"{where}: these prompts stay as they are")
            return
        needed, limit = changed.n_positions, pl_module.model.positions.max_positions  # type: ignore[union-attr]
        if limit is not None and needed > limit:  # type: ignore[operator]
            self._leave_out(trainer, f"{where}: prompts of {needed} positions, model.max_positions={limit}")
            return

        def after_batch(prompts: int) -> None:
            move(prompts * trainer.world_size * multiple, where)
            self._heed(trainer)

        answers = ask(
            trainer,
            pl_module,
            changed,
            drop_positions=condition.drop_positions,
            zero_meta_embedding=condition.zero_meta_embedding,
            after_batch=after_batch,
        )
        if condition == FULL:
            self._asked[multiple] = examples, answers
        full = None if condition == FULL else self._asked[multiple][1]
        if trainer.is_global_zero:
            self.cells.append(make_cell(condition, multiple, changed, answers, full))
            self.slices += make_slices(condition, multiple, examples, answers)

    def _leave_out(self, trainer: Trainer, message: str) -> None:
        self._say_once(trainer, f"answers: left out {message}")

    def _say_once(self, trainer: Trainer, message: str) -> None:
        if message not in self._told and trainer.is_global_zero:
            self._told.add(message)
            print(message)

    # -- results

    def _log(self, trainer: Trainer) -> None:
        if self.cells and trainer.is_global_zero:
            for logger in trainer.loggers:
                scalars = {name: value for cell in self.cells for name, value in cell.scalars.items()}
                logger.log_metrics(scalars, step=trainer.global_step)

    def _write(self, trainer: Trainer) -> None:
        figures: dict[str, Figure | None] = {
            "answers_by_length": length_figure(self.cells),
            "answers_by_place": place_figure(self._asked),
            "answers_errors": error_figure(self.cells),
        }
        folder = log_folder(trainer)
        for name, figure in figures.items():
            if figure is not None:
                path = None if folder is None else folder / f"{name}.png"
                show_figure(trainer, name.replace("_", "/", 1), figure, path)
        if folder is not None:
            write_atomically(folder / "answers.csv", to_csv(self.cells, AnswerCell))
            write_atomically(folder / "slices.csv", to_csv(self.slices, Slice))

    def _print(self, trainer: Trainer) -> None:
        if self.cells and trainer.is_global_zero:
            print_answers(printer(), self.cells)


@dataclass(frozen=True)
class _Part:
    """What is asked at one length: the undisturbed prompts first."""

    multiple: float
    n: int
    conditions: list[MarkCondition]

    @property
    def work(self) -> float:
        """In prompts of the trained length."""
        return self.multiple * self.n * len(self.conditions)


def _ablations(trainer: Trainer) -> list[AnswerAblation]:
    return [callback for callback in trainer.callbacks if isinstance(callback, AnswerAblation)]  # type: ignore[attr-defined]
