"""EmbeddingAblation: what is left of the answers when the marks' learned embedding is zero."""

from dataclasses import replace

from lightning_metatok.lit.ablations.answer_ablation import AnswerAblation
from lightning_metatok.lit.ablations.answer_position_ablation import can_drop
from lightning_metatok.lit.answers.conditions import MarkCondition
from lightning_metatok.model import TransformerConfig
from lightning_metatok.tasks.marks import MarkPlacement


class EmbeddingAblation(AnswerAblation):
    """The marks' token embedding zeroed, alone and together with their positions.

    Args:
        multiples: Lengths, as multiples of the largest trained one. None of them switches this off.
        n: Prompts of each length; null: 1000, in a short run a 16th of those that training saw.
        with_positions: Zero the embedding with the positions dropped, too.
    """

    def __init__(
        self,
        multiples: list[float] = [1, 2],  # noqa: B006  (never changed; the CLI reads the default)
        n: int | None = None,
        with_positions: bool = True,
    ) -> None:
        super().__init__(multiples, n)
        self.with_positions = with_positions

    def conditions(self, config: TransformerConfig, placement: MarkPlacement) -> list[MarkCondition]:
        """The embedding zeroed; embedding and positions zeroed, unless the model has no positions at its marks."""
        ablations = [MarkCondition("no_embedding", "embedding zeroed", "embedding", zero_meta_embedding=True)]
        if self.with_positions and config.drop_positions != "both" and can_drop(config, "both"):
            name = "no_embedding_no_positions"
            ablations.append(replace(ablations[0], name=name, label="both zeroed", drop_positions="both"))
        return ablations
