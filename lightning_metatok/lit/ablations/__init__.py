"""What is asked of a model while it trains: one ablation a file."""

from lightning_metatok.lit.ablations.answer_position_ablation import AnswerPositionAblation
from lightning_metatok.lit.ablations.answer_study import AnswerStudy
from lightning_metatok.lit.ablations.embedding_ablation import EmbeddingAblation
from lightning_metatok.lit.ablations.length_generalisation import LengthGeneralisation
from lightning_metatok.lit.ablations.placement_ablation import PlacementAblation
from lightning_metatok.lit.ablations.position_ablation import PositionAblation

__all__ = [
    "AnswerPositionAblation",
    "AnswerStudy",
    "EmbeddingAblation",
    "LengthGeneralisation",
    "PlacementAblation",
    "PositionAblation",
]
