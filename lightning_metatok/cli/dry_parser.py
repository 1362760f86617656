"""The parser of `fit` without a fit: names of its options, and whether values are what it takes."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LightningArgumentParser

from lightning_metatok.cli.bounds import check_bounds
from lightning_metatok.cli.config_files import known_keys
from lightning_metatok.cli.kinds import check_names
from lightning_metatok.cli.training import TrainingCLI
from lightning_metatok.cli.training_parser import quiet
from lightning_metatok.lit import TaskDataModule
from lightning_metatok.runtime import resolve_precision


def parser_of(kind: str) -> LightningArgumentParser:
    """Return the parser for a kind of data in `KINDS`."""

    class Parsing(TrainingCLI):
        def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
            raise StopIteration(parser)

    quiet()
    try:
        Parsing("fit", ["--data.task=list_recall"] if kind == "task" else [])
    except StopIteration as parser:
        return parser.value
    raise AssertionError("the parser was not asked")


def names_of_options(kind: str) -> list[str]:
    """Return the dotted names of all options, for a kind of data in `KINDS`."""
    return known_keys(parser_of(kind))


def try_arguments(parser: LightningArgumentParser, arguments: Sequence[str]) -> None:
    """Read the arguments of a fit and build what they describe, without weights, text or a folder.

    What depends on the machine is left out, as the fit may run on another one: its devices, and files to start from.

    Raises:
        UserError: fit would refuse them.
    """
    # Only the classes that are built here: callbacks are small, and the trainer would look for devices.
    config = parser.parse_args([*arguments, "--trainer.accelerator=cpu", "--trainer.devices=1"])
    check_bounds(config)
    check_names(config)
    resolve_precision(str(config.trainer.precision))
    config.model.init_from = config.model.init_new = config.model.distill_from = None
    with torch.device("meta"):
        data = parser.instantiate_classes(config).data
    if isinstance(data, TaskDataModule) and data.rendering == "symbols":  # a task in text needs a corpus
        data.prepare_data()
