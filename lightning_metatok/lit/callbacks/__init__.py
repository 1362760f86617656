"""What every run wants, one callback a file."""

from lightning_metatok.lit.callbacks.arm_card import ArmCard
from lightning_metatok.lit.callbacks.bigram_baseline import BigramBaseline
from lightning_metatok.lit.callbacks.checkpoint import RunCheckpoint
from lightning_metatok.lit.callbacks.curriculum import Curriculum
from lightning_metatok.lit.callbacks.dashboard import Dashboard
from lightning_metatok.lit.callbacks.dynamics import Dynamics
from lightning_metatok.lit.callbacks.environment import Environment
from lightning_metatok.lit.callbacks.final_table import FinalTable
from lightning_metatok.lit.callbacks.harness import HarnessEvaluation
from lightning_metatok.lit.callbacks.held_out import HeldOutText
from lightning_metatok.lit.callbacks.memory import Memory
from lightning_metatok.lit.callbacks.nonfinite import NonFinite
from lightning_metatok.lit.callbacks.predictions import PredictionWriter
from lightning_metatok.lit.callbacks.progress import TokenProgress
from lightning_metatok.lit.callbacks.run_state import RunState
from lightning_metatok.lit.callbacks.text_sample import TextSample
from lightning_metatok.lit.callbacks.throughput import Throughput

__all__ = [
    "ArmCard",
    "BigramBaseline",
    "Curriculum",
    "Dashboard",
    "Dynamics",
    "Environment",
    "FinalTable",
    "HarnessEvaluation",
    "HeldOutText",
    "Memory",
    "NonFinite",
    "PredictionWriter",
    "RunCheckpoint",
    "RunState",
    "TextSample",
    "Throughput",
    "TokenProgress",
]
