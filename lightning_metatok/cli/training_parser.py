"""The parser of the Trainer's verbs, and what Lightning says, in this project's words: one line, or nothing."""

import copy
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from operator import or_
from typing import Any, NoReturn, Union, get_args, get_origin

import yaml
from jsonargparse import set_loader
from lightning.pytorch.cli import LightningArgumentParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_metatok.cli.config_files import check_config_files, explain, known_keys, one_line, values_of
from lightning_metatok.cli.layers import CONFIG_OPTIONS, merged_mappings, read_layers
from lightning_metatok.cli.old_options import current, without_old_keys
from lightning_metatok.cli.trust import check_trusted, check_trusted_names
from lightning_metatok.errors import UserError, nearest
from lightning_metatok.old_keys import old_options
from lightning_metatok.yaml_files import WITH_MARKS, as_text, read_config, value_of, with_marks

MODE = "omegaconf+"
"""jsonargparse's name for: ${...} is followed once all files and options are laid over each other."""


def _load(text: str) -> Any:
    """`value_of`; text such as ``name:`` and ``{a,b}``, mappings of nothing to YAML, stays text as in jsonargparse."""
    value = value_of(text)
    if isinstance(value, dict) and value and all(item is None for item in value.values()):
        bare = text.strip()
        if bare == f"{next(iter(value))}:" or set(bare.strip(" {}").replace(" ", "").split(",")) == set(value):
            return text
    return value


set_loader(MODE, _load, (yaml.YAMLError,))
OmegaConf.register_resolver(WITH_MARKS, with_marks, replace=True, annotation_validation="error")
NEED_PACKAGES = ("accelerator", "strategy", "precision", "profiler")
"""Options of the trainer with values that need a package of their own."""


class Parser(LightningArgumentParser):
    """A parser whose errors are UserErrors of one line, and in which mappings are merged (`cli.layers`).

    Attributes:
        given: after parsing, the configuration as it was before ${...} was followed; None where there is none in it.
        say: takes a line for the user.
        foreign: a configuration among those given that the user did not name, and whose classes nobody has vouched for.
    """

    given: dict[str, Any] | None = None
    say: Callable[[str], None] = staticmethod(lambda line: None)
    foreign: str | None = None

    def fresh(self, prog: str, say: Callable[[str], None], foreign: str | None) -> "Parser":
        """Return a parser with the same options that has parsed nothing, for a command called `prog`."""
        twin = copy.copy(self)
        twin.given, twin.prog, twin.say, twin.foreign = None, prog, say, foreign
        twin.callback_keys = list(self.callback_keys)
        return twin

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """As jsonargparse, which follows ${...} in the text that this returns before it has checked any value."""
        if not (kwargs.get("skip_validation") and kwargs.get("skip_link_targets") is False):
            return super().dump(*args, **kwargs)
        self.given = json.loads(super().dump(*args, **kwargs, format="json"))
        return as_text(self.given)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise UserError instead of printing a usage text."""
        raise UserError(explain(message, known_keys(self))) from ex

    def parse_args(self, args: Any = None, *rest: Any, **kwargs: Any) -> Any:
        """Check the config files by name before jsonargparse merges them."""
        known, argv = known_keys(self), list(args or [])
        check_config_files(values_of(argv, CONFIG_OPTIONS), [*known, *old_options()])
        if self.foreign is not None:
            check_trusted(read_config(self.foreign), f"--config={self.foreign}", self)
            own = read_layers(without(argv, self.foreign), known)
        argv = current(argv, CONFIG_OPTIONS)
        argv += merged_mappings(read_layers(argv, known), self, known, self.say)
        try:
            parsed = super().parse_args(argv, *rest, **kwargs)
        except OmegaConfBaseException as error:  # ${...} of no known key, or in a circle
            line = str(error).partition("\n")[0]
            named = re.search(r"'([\w.]+)'", line)
            raise UserError(f"{error.full_key}: {line}{nearest(named[1], known) if named else ''}") from error
        if self.foreign is not None:
            check_trusted_names(vars(parsed.as_flat()), own, f"--config={self.foreign}")
        return parsed

    def _apply_actions(self, cfg: Any, *rest: Any, **kwargs: Any) -> Any:
        """Leave out what `current` has said in new keys."""
        return super()._apply_actions(without_old_keys(cfg), *rest, **kwargs)


def without(argv: Sequence[str], foreign: str) -> list[str]:
    """Return `argv` without the configuration that the user did not name, which comes first."""
    assert tuple(argv[:2]) == ("--config", foreign)
    return list(argv[2:])


NUMBER = re.compile(r"^[-+]?[0-9._]*[0-9][0-9._]*([eE][-+]?[0-9]+)?$")


def keep_text() -> None:
    """Quote text that looks like a number wherever YAML is written: PyYAML takes 1e5 for text, OmegaConf for a number.

    jsonargparse writes all options as YAML for OmegaConf to fill in ${...}, so that `--data.text_field=1e5` became
    100000.0.
    """
    yaml.SafeDumper.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+.0123456789"))


def read_integers_first(parser: LightningArgumentParser) -> None:
    """Let 1 be an integer wherever an option may be either: `limit_val_batches` means one batch then, not all of them.

    Lightning says `Union[int, float]`; Python keeps one of two equal types, and what else was imported decides which.
    """
    for action in parser._actions:
        hint = getattr(action, "_typehint", None)
        kinds = list(get_args(hint))
        if get_origin(hint) is Union and {int, float} <= set(kinds) and kinds.index(float) < kinds.index(int):
            kinds.remove(int)
            kinds.insert(kinds.index(float), int)
            action._typehint = reduce(or_, kinds)  # type: ignore[attr-defined]


@contextmanager
def trainer_errors(options: Mapping[str, Any], *kinds: type[Exception]) -> Iterator[None]:
    """Lightning's own word that the trainer's `options` cannot work, as a UserError that names the one it is about."""
    try:
        yield
    except kinds as error:
        line = one_line(str(error))
        named = {key: match.start() for key in options if (match := re.search(rf"\b{key}\b", line))}
        # Some messages show the value alone.
        shown = [key for key, value in options.items() if isinstance(value, str) and f"'{value}'" in line]
        # What needs another package does not say which option asked for it.
        chosen = [key for key in NEED_PACKAGES if str(options.get(key)) not in ("None", "auto", "cpu")]
        needs = chosen if isinstance(error, ImportError) else []
        key = next(iter((*sorted(named, key=named.__getitem__), *shown, *needs)), None)
        raise UserError(f"trainer.{key}={options[key]}: {line}" if key else f"trainer: {line}") from error


@contextmanager
def class_errors() -> Iterator[None]:
    """What a class of the configuration, such as a logger, says as it is built: one line with its name."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        if not text.startswith("Does not validate against any of the Union subtypes"):
            raise
        # jsonargparse lists why the value is of none of the types that its option takes.
        blocks = text.partition("\nGiven value")[0].split("\n  - ")[1:]
        told = [re.sub(r"\AProblem with[^\n]*:\n", "", block) for block in blocks]
        reasons = [one_line(one).lstrip("- ") for one in told if not one.startswith(("Expected ", "Not a valid "))]
        named = [short for _, short in re.findall(r"class_path='([\w.]*\.)?(\w+)'", text)]
        if not reasons or not named:
            raise
        raise UserError(f"{', '.join(named)}: {reasons[0]}") from error


def quiet() -> None:
    """Silence what Lightning says about this project's deliberate choices, and its advertisements."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # building a batch takes less than a millisecond
        ".*`srun` command is available.*",  # a run outside a job, on a machine that has SLURM
        ".*LightningCLI's args parameter is intended.*",  # this is the command line
        ".*dirpath has changed.*",  # a run that goes on from a checkpoint of another folder
        ".*dataloader is not resumable.*",  # batches are a function of the step
        ".*Be aware that when using `ckpt_path`.*",  # verbs that only read need not write checkpoints
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
        ".*isinstance.*LeafSpec.*",  # torch's own deprecation, raised inside Lightning
        ".*default schedule will be overridden.*",  # PyTorch's profiler, of a short validation
        r"\s*(By default only one|``instantiate_classes``)",  # jsonargparse's, about a call inside Lightning
    ):
        warnings.filterwarnings("ignore", message)
