"""Files under conf/ and what they make, laid over each other."""

from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import torch

from lightning_metatok.cli.training import TrainingCLI, quiet
from lightning_metatok.lit.callbacks.arm_card import arm_name, differences
from lightning_metatok.model import MetaTransformer, TransformerConfig

CONF = Path(__file__).resolve().parents[2] / "conf"
EXPERIMENTS = sorted(CONF.glob("*.yaml"))
TASKS = sorted((CONF / "task").glob("*.yaml"))
NANO = CONF / "task" / "list_recall_nano.yaml"
ARMS = sorted((CONF / "arm").glob("*.yaml"))
OVERLAYS = sorted((CONF / "debug").glob("*.yaml"))
FOR_TASKS_ALONE = {"meta-every", "location-prompt"}
"""Arms that need segments, which text has none of, or prompts."""
COUNTS_ANEW = {"rmt"}
"""Arms that count positions themselves, and refuse ids of a task."""


class ParseOnly(TrainingCLI):
    """The command line up to the point where it would build the classes."""

    def instantiate_classes(self) -> None:
        """Build nothing."""


@cache
def parse(*paths: Path, options: tuple[str, ...] = ()) -> dict[str, Any]:
    """The whole configuration that these files make, laid over each other, and `options` over them."""
    quiet()
    return ParseOnly("fit", [*(f"--config={path}" for path in paths), *options]).config.as_dict()


def transformer(config: dict[str, Any]) -> TransformerConfig:
    """The model of a whole configuration; building it checks it."""
    names = {field.name for field in fields(TransformerConfig)}
    return TransformerConfig(**{key: value for key, value in config["model"].items() if key in names})


def n_parameters(*paths: Path) -> int:
    """Parameters of the model of these files, built without memory."""
    with torch.device("meta"):
        return MetaTransformer(transformer(parse(*paths))).n_parameters()


def of_arm(name: str, base: Path) -> dict[str, Any]:
    """The whole configuration of an arm laid over `base`."""
    return parse(base, CONF / "arm" / f"{name}.yaml")


def name_of_run(arm: str) -> str:
    """What a run of the arm is called."""
    config = of_arm(arm, NANO)
    placement = "none" if config["data"]["meta_fraction"] == 0 else config["data"]["meta_placement"]
    return arm_name(differences(transformer(config), placement), "hint")
