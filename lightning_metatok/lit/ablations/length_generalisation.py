"""LengthGeneralisation: how far beyond the trained length answers stay right."""

from lightning_metatok.lit.ablations.answer_ablation import AnswerAblation
from lightning_metatok.lit.answers.conditions import MarkCondition
from lightning_metatok.model import TransformerConfig
from lightning_metatok.tasks.marks import MarkPlacement


class LengthGeneralisation(AnswerAblation):
    """Undisturbed prompts at many lengths.

    Args:
        multiples: Lengths, as multiples of the largest trained one. None of them switches this off.
        n: Prompts of each length; null: 1000, in a short run a 16th of those that training saw.
        every_n_validations: Ask in training, too, at every so-manieth validation; not when not given.

    Raises:
        UserError: an option out of range.
    """

    def __init__(
        self,
        multiples: list[float] = [1, 1.5, 2, 4, 8],  # noqa: B006  (never changed; the CLI reads the default)
        n: int | None = None,
        every_n_validations: int | None = None,
    ) -> None:
        super().__init__(multiples, n)
        self.every_n_validations = every_n_validations
        every = every_n_validations
        self._expect(every is None or every >= 1, "every_n_validations", every, "at least 1, or null for never")

    def conditions(self, config: TransformerConfig, placement: MarkPlacement) -> list[MarkCondition]:
        """Nothing beside the undisturbed prompts."""
        return []
