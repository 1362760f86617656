"""AnswerPositionAblation: are answers better when the marks have no positions? The paper's "No Pos" on tasks."""

from lightning_metatok.errors import UserError
from lightning_metatok.lit.ablations.answer_ablation import AnswerAblation
from lightning_metatok.lit.answers.conditions import MarkCondition
from lightning_metatok.model import TransformerConfig, positions
from lightning_metatok.model.branch import EVERYWHERE, SELF_ATTENTION
from lightning_metatok.model.checks import DROP_NOWHERE, check_drop_positions
from lightning_metatok.tasks.marks import MarkPlacement

LABELS = {
    "self_attention": ("no_positions_self_attention", "no pos. in self"),
    "meta_attention": ("no_positions_meta_attention", "no pos. in meta"),
    EVERYWHERE: ("no_positions", "no positions"),
    DROP_NOWHERE: ("positions_kept", "positions kept"),
}
"""Branch -> condition, label."""


class AnswerPositionAblation(AnswerAblation):
    """Positions dropped at the marks, in one of the attentions or in all of them.

    What the model cannot do is left out: it has only those branches that its mechanism adds, and a learned table feeds
    all of them.
    A model that was trained without positions at its marks is asked with them, too.

    Args:
        multiples: Lengths, as multiples of the largest trained one. None of them switches this off.
        n: Prompts of each length; null: 1000, in a short run a 16th of those that training saw.
        where: Branches whose positions are dropped, such as self_attention and meta_attention, one condition each;
            both: in all of them.
    """

    def __init__(
        self,
        multiples: list[float] = [1, 2],  # noqa: B006  (never changed; the CLI reads the default)
        n: int | None = None,
        where: list[str] = ["self_attention", "meta_attention", "both"],  # noqa: B006
    ) -> None:
        super().__init__(multiples, n)
        self.where = where

    def conditions(self, config: TransformerConfig, placement: MarkPlacement) -> list[MarkCondition]:
        """One condition for each way to drop positions that differs from how the model was trained."""
        wanted = (*LABELS, *(name for name in self.where if name not in LABELS))
        choices = [c for c in wanted if c in (*self.where, DROP_NOWHERE) and c != config.drop_positions]
        added = {name for layer in range(config.n_layers) for name in config.added(layer)}
        return [
            MarkCondition(*label_of(choice), "positions", drop_positions=choice)
            for choice in choices
            if can_drop(config, choice)
            and (choice in (EVERYWHERE, DROP_NOWHERE) or (added and choice in (SELF_ATTENTION.name, *added)))
        ]


def label_of(choice: str) -> tuple[str, str]:
    """Name and label of the condition in which positions are dropped there."""
    return LABELS.get(choice, (f"no_positions_{choice}", f"no pos. in {choice.removesuffix('_attention')}"))


def can_drop(config: TransformerConfig, choice: str) -> bool:
    """Whether this model has positions that can be dropped in this way."""
    family = positions.AXIS.find(config.position)
    if not (family.embeds or family.rotates or family.transforms_scores):
        return False
    try:
        check_drop_positions(config, choice)
    except UserError:
        return False
    return True
