"""One callback a file."""

from lightning_metatok.lit.callbacks.answer_position_ablation import AnswerPositionAblation
from lightning_metatok.lit.callbacks.answer_study import AnswerStudy
from lightning_metatok.lit.callbacks.arm_card import ArmCard
from lightning_metatok.lit.callbacks.bigram_baseline import BigramBaseline
from lightning_metatok.lit.callbacks.checkpoint import RunCheckpoint
from lightning_metatok.lit.callbacks.curriculum import Curriculum
from lightning_metatok.lit.callbacks.dashboard import Dashboard
from lightning_metatok.lit.callbacks.embedding_ablation import EmbeddingAblation
from lightning_metatok.lit.callbacks.environment import Environment
from lightning_metatok.lit.callbacks.final_table import FinalTable
from lightning_metatok.lit.callbacks.length_generalisation import LengthGeneralisation
from lightning_metatok.lit.callbacks.memory import Memory
from lightning_metatok.lit.callbacks.nonfinite import NonFinite
from lightning_metatok.lit.callbacks.placement_ablation import PlacementAblation
from lightning_metatok.lit.callbacks.position_ablation import PositionAblation
from lightning_metatok.lit.callbacks.predictions import PredictionWriter
from lightning_metatok.lit.callbacks.progress import TokenProgress
from lightning_metatok.lit.callbacks.run_state import RunState
from lightning_metatok.lit.callbacks.text_sample import TextSample
from lightning_metatok.lit.callbacks.throughput import Throughput

__all__ = [
    "AnswerPositionAblation",
    "AnswerStudy",
    "ArmCard",
    "BigramBaseline",
    "Curriculum",
    "Dashboard",
    "EmbeddingAblation",
    "Environment",
    "FinalTable",
    "LengthGeneralisation",
    "Memory",
    "NonFinite",
    "PlacementAblation",
    "PositionAblation",
    "PredictionWriter",
    "RunCheckpoint",
    "RunState",
    "TextSample",
    "Throughput",
    "TokenProgress",
]
