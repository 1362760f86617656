"""AnswerAblation: which questions a trained model is asked; `AnswerStudy` asks them, each once, and reports."""

from abc import ABC, abstractmethod

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metatok.errors import UserError
from lightning_metatok.lit.answers.conditions import MarkCondition
from lightning_metatok.lit.data.protocol import data_of
from lightning_metatok.model import TransformerConfig
from lightning_metatok.tasks.marks import MarkPlacement


class AnswerAblation(Callback, ABC):
    """Conditions, and the lengths that they are asked at beside the undisturbed prompts.

    Args:
        multiples: Lengths, as multiples of the largest trained one. None of them switches this ablation off.
        n: Prompts of each length; null: see `prompts_for`. Where two ablations ask at one length, both ask the larger
            number.

    Raises:
        UserError: a multiple that is not positive, or fewer than one prompt.
    """

    def __init__(self, multiples: list[float], n: int | None) -> None:
        self.multiples = sorted({float(multiple) for multiple in multiples})
        self.n = n
        self._expect(all(multiple > 0 for multiple in self.multiples), "multiples", multiples, "positive numbers")
        self._expect(n is None or n >= 1, "n", n, "at least 1")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to be alone: nothing would be asked."""
        names = {type(callback).__name__ for callback in trainer.callbacks}  # type: ignore[attr-defined]
        if "AnswerStudy" not in names:
            raise UserError(
                f"trainer.callbacks: {type(self).__name__} says what to ask; expected AnswerStudy beside it, which asks"
            )

    @abstractmethod
    def conditions(self, config: TransformerConfig, placement: MarkPlacement) -> list[MarkCondition]:
        """Return what is asked beside the undisturbed prompts, of a model of this shape whose prompts have marks."""

    def _expect(self, right: bool, option: str, value: object, expected: str) -> None:
        if not right:
            raise UserError(f"{type(self).__name__}.{option}={value}: expected {expected}")


MOST_PROMPTS, LEAST_PROMPTS = 1000, 20
SHARE = 16
"""Prompts seen in training for each one that is asked: with every ablation that a task has, the study then takes about
as long as the training, and less where the run is longer."""


def prompts_for(trainer: Trainer) -> int:
    """Prompts a condition and length where no option says how many: 1,000, fewer after a run of few prompts."""
    if trainer.state.fn != "fit" or trainer.max_steps < 1:
        return MOST_PROMPTS
    return min(MOST_PROMPTS, max(LEAST_PROMPTS, prompts_seen(trainer) // SHARE))


def prompts_seen(trainer: Trainer) -> int:
    """Prompts of the whole run, on all ranks together."""
    batch_size = data_of(trainer).batch_size
    return int(trainer.max_steps * trainer.accumulate_grad_batches * trainer.world_size * batch_size)
