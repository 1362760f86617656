"""AnswerPositionAblation: are answers better when the marks have no positions? The paper's "No Pos" on tasks."""

from typing import Literal

from lightning_metatok.errors import UserError
from lightning_metatok.lit.callbacks.answer_ablation import AnswerAblation
from lightning_metatok.lit.conditions import Condition
from lightning_metatok.model import TransformerConfig
from lightning_metatok.model.positions import FAMILIES
from lightning_metatok.tasks.marks import MarkPlacement

Where = Literal["self_attention", "meta_attention", "both"]
LABELS = {
    "self_attention": ("no_positions_self_attention", "no pos. in self"),
    "meta_attention": ("no_positions_meta_attention", "no pos. in meta"),
    "both": ("no_positions", "no positions"),
    "none": ("positions_kept", "positions kept"),
}


class AnswerPositionAblation(AnswerAblation):
    """Positions dropped at the marks, in one of the two attentions or in both.

    What the model cannot do is left out: without meta-attention there is one attention, and a learned table feeds both.
    A model that was trained without positions at its marks is asked with them, too.

    Args:
        multiples: Lengths, as multiples of the largest trained one. None of them switches this off.
        n: Prompts of each length.
        where: Attention layers whose positions are dropped, one condition each.
    """

    def __init__(
        self,
        multiples: list[float] = [1, 2],  # noqa: B006  (never changed; the CLI reads the default)
        n: int = 1000,
        where: list[Where] = ["self_attention", "meta_attention", "both"],  # noqa: B006
    ) -> None:
        super().__init__(multiples, n)
        self.where = where

    def conditions(self, config: TransformerConfig, placement: MarkPlacement) -> list[Condition]:
        """One condition for each way to drop positions that differs from how the model was trained."""
        choices = [c for c in LABELS if c in (*self.where, "none") and c != config.drop_positions]
        return [
            Condition(*LABELS[choice], "positions", drop_positions=choice)
            for choice in choices
            if can_drop(config, choice) and (config.meta_attention or choice in ("both", "none"))
        ]


def can_drop(config: TransformerConfig, choice: str) -> bool:
    """Whether this model has positions that can be dropped in this way."""
    family = FAMILIES[config.position]
    if not (family.embeds or family.rotates or family.transforms_scores):
        return False
    try:
        config.check_drop_positions(choice)
    except UserError:
        return False
    return True
