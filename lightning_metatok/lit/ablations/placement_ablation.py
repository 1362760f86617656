"""PlacementAblation: what happens to the answers when marks stand elsewhere, lie, are gone, or are twice as many."""

from lightning_metatok.lit.ablations.answer_ablation import AnswerAblation
from lightning_metatok.lit.answers.conditions import MarkCondition, Marks
from lightning_metatok.model import TransformerConfig
from lightning_metatok.tasks.marks import MarkPlacement

LABELS: dict[Marks, str] = {
    "random": "marks at random",
    "wrong_segment": "wrong segment",
    "removed": "marks removed",
    "doubled": "marks doubled",
}


class PlacementAblation(AnswerAblation):
    """Marks moved, made to lie, removed and doubled, on the same items.

    Only a hint can lie: where every segment has marks, or they stand anywhere, `wrong_segment` is left out.

    Args:
        multiples: Lengths, as multiples of the largest trained one. None of them switches this off.
        n: Prompts of each length; null: 1000, in a short run a 16th of those that training saw.
        marks: What is done to the marks, one condition each.
    """

    def __init__(
        self,
        multiples: list[float] = [1, 2],  # noqa: B006  (never changed; the CLI reads the default)
        n: int | None = None,
        marks: list[Marks] = ["random", "wrong_segment", "removed", "doubled"],  # noqa: B006
    ) -> None:
        super().__init__(multiples, n)
        self.marks = marks

    def conditions(self, config: TransformerConfig, placement: MarkPlacement) -> list[MarkCondition]:
        """One condition for each way."""
        return [
            MarkCondition(f"marks_{way}", label, "marks", marks=way)
            for way, label in LABELS.items()
            if way in self.marks and (placement == "hint" or way != "wrong_segment")
        ]
