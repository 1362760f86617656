"""One callback a file."""

from lightning_metatok.lit.callbacks.bigram_baseline import BigramBaseline
from lightning_metatok.lit.callbacks.checkpoint import RunCheckpoint
from lightning_metatok.lit.callbacks.curriculum import Curriculum
from lightning_metatok.lit.callbacks.dashboard import Dashboard
from lightning_metatok.lit.callbacks.final_table import FinalTable
from lightning_metatok.lit.callbacks.position_ablation import PositionAblation
from lightning_metatok.lit.callbacks.predictions import PredictionWriter
from lightning_metatok.lit.callbacks.progress import TokenProgress
from lightning_metatok.lit.callbacks.text_sample import TextSample
from lightning_metatok.lit.callbacks.throughput import Throughput

__all__ = [
    "BigramBaseline",
    "Curriculum",
    "Dashboard",
    "FinalTable",
    "PositionAblation",
    "PredictionWriter",
    "RunCheckpoint",
    "TextSample",
    "Throughput",
    "TokenProgress",
]
