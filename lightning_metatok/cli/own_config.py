"""The configuration that a checkpoint brings, and what a command line says before there is a parser for it."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import yaml

from lightning_metatok.cli.config_files import values_of, without_options
from lightning_metatok.cli.layers import CONFIG_OPTIONS, last_value, read_layers
from lightning_metatok.cli.trust import OPTION
from lightning_metatok.errors import UserError
from lightning_metatok.lit.checkpoints import CHECKPOINTS, CONFIG
from lightning_metatok.yaml_files import value_of

AUTO = "auto"


def run_folder_of(checkpoint: str | None) -> Path | None:
    """The run folder that a checkpoint lies in: the folder above `checkpoints/` that holds config.yaml."""
    folder = Path(checkpoint).parent.parent if checkpoint and checkpoint != AUTO else None
    return folder if folder is not None and (folder / CONFIG).is_file() else None


def with_own_config(verb: str, argv: list[str], *, always: bool = False) -> tuple[list[str], str | None]:
    """Return `argv` with the configuration of the run folder that its checkpoint lies in, where it names none.

    `always`: also where it names some, which are then laid over it. The second value is that configuration, unless
    the user trusts it.

    Raises:
        UserError: nothing says what the model is.
    """
    trusted, argv = OPTION in argv, [word for word in argv if word != OPTION]
    checkpoints, configs = values_of(argv, ("--ckpt_path",)), values_of(argv, CONFIG_OPTIONS)
    if checkpoints and (always or not configs):
        folder = run_folder_of(checkpoints[-1])
        if folder is not None:  # a checkpoint in its run folder brings its own configuration
            own = str(folder / CONFIG)
            return ["--config", own, *argv], None if trusted else own
        if not configs and not _describes_itself(argv):
            path = checkpoints[-1]
            why = (
                "expected --config, as no config.yaml stands beside its folder"
                if os.path.isfile(path)
                else "no such file"
            )
            raise UserError(f"--ckpt_path={path}: {why}")
    elif verb != "fit" and not _describes_itself(argv) and not configs:
        raise UserError(f"--ckpt_path: expected a checkpoint to {verb}, as `fit` writes them")
    return argv, None


def names_a_task(argv: Sequence[str]) -> bool:
    """Whether a recall task is what is trained: which options there are depends on it.

    Files that cannot be read are left to `check_config_files`.
    """
    task = last_value(read_layers(argv, (), skip_unreadable=True), "data.task")
    try:
        return task is not None and value_of(str(task)) is not None
    except yaml.YAMLError as error:
        raise UserError(f"--data.task={task}: not a YAML value; expected a name") from error


def _describes_itself(argv: Sequence[str]) -> bool:
    """Whether options say what the model is, or nothing is going to be built."""
    return any(argument.startswith(("--model.", "-h", "--help", "--print_config")) for argument in argv)


def going_on(verb: str, argv: Sequence[str], folder: Path) -> str:
    """Return what to type to go on with the run in `folder`, which was started with `argv`."""
    if any((folder / CHECKPOINTS).glob("*.ckpt")):
        kept = without_options(argv, ("--run_dir", "--ckpt_path"))
        return shlex.join(["lightning-metatok", verb, *kept, f"--run_dir={folder}", f"--ckpt_path={AUTO}"])
    return shlex.join(["lightning-metatok", verb, *argv])  # nothing was made, so nothing is lost
