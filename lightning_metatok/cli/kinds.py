"""The two kinds of data, text and recall tasks, and what each verb of the Trainer runs with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

from lightning.pytorch import Callback, LightningDataModule

from lightning_metatok.lit import MetaTokenDataModule, TaskDataModule, optimizers
from lightning_metatok.lit.ablations import (
    AnswerPositionAblation,
    AnswerStudy,
    EmbeddingAblation,
    LengthGeneralisation,
    PlacementAblation,
    PositionAblation,
)
from lightning_metatok.lit.callbacks import (
    ArmCard,
    BigramBaseline,
    Curriculum,
    Dynamics,
    Environment,
    HarnessEvaluation,
    HeldOutText,
    Memory,
    NonFinite,
    RunCheckpoint,
    TextSample,
    Throughput,
)
from lightning_metatok.lit.checkpoints.contents import AXES
from lightning_metatok.tasks import TASKS


@dataclass(frozen=True)
class Kind:
    """What goes with a kind of data.

    Attributes:
        data: its data module.
        callbacks: those with options of their own, by their key.
        verbs: which of them each verb runs.
        always: those without options that each verb runs, too.
    """

    data: type[LightningDataModule]
    callbacks: Mapping[str, type[Callback]]
    verbs: Mapping[str, Sequence[str]]
    always: Mapping[str, Sequence[type[Callback]]]

    @property
    def seed(self) -> int:
        """The seed of its data where nobody names one."""
        return int(signature(self.data).parameters["seed"].default)


KINDS = {
    "text": Kind(
        MetaTokenDataModule,
        callbacks={
            "checkpoint": RunCheckpoint,
            "nonfinite": NonFinite,
            "throughput": Throughput,
            "bigram": BigramBaseline,
            "ablation": PositionAblation,
            "sample": TextSample,
            "evaluate": HarnessEvaluation,
            "dynamics": Dynamics,
        },
        verbs={
            "fit": ["checkpoint", "nonfinite", "throughput", "bigram", "ablation", "sample", "evaluate", "dynamics"],
            "validate": ["ablation"],
            "test": ["ablation"],
            "predict": [],
            "probe": [],
        },
        always={"fit": [ArmCard, Environment, Memory, HeldOutText]},
    ),
    "task": Kind(
        TaskDataModule,
        callbacks={
            "checkpoint": RunCheckpoint,
            "nonfinite": NonFinite,
            "throughput": Throughput,
            "lengths": LengthGeneralisation,
            "positions": AnswerPositionAblation,
            "embedding": EmbeddingAblation,
            "placement": PlacementAblation,
            "dynamics": Dynamics,
        },
        verbs={
            "fit": [
                "checkpoint",
                "nonfinite",
                "throughput",
                "lengths",
                "positions",
                "embedding",
                "placement",
                "dynamics",
            ],
            "validate": [],
            "test": ["lengths", "positions", "embedding", "placement"],
            "predict": [],
            "probe": [],
        },
        always={"fit": [ArmCard, Environment, Curriculum, AnswerStudy, Memory], "test": [AnswerStudy]},
    ),
}


def check_names(config: Any) -> None:
    """Raise `UserError` where an axis of the model, its optimiser or the task has a name that nobody has."""
    for axis in AXES:
        axis.find(config.model[axis.key])
    optimizers.check(config.model.optimizer.name, config.model.optimizer.options)
    if (task := config.data.get("task")) is not None:
        TASKS.resolve(task)
