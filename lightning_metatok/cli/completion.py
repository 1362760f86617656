"""`completion`: a script with which the shell completes verbs, options, and values where there are names for them.

    lightning-metatok completion bash > ~/.local/share/bash-completion/completions/lightning-metatok
    lightning-metatok completion zsh > ~/.zfunc/_lightning-metatok          (a folder in $fpath)

Names are those that are installed now: make the script again after an update. Values are completed behind a blank:
`--model.pattern win<TAB>`.
"""

import argparse
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from lightning_metatok.errors import OptionParser, UserError, nearest

SHELLS = ("bash", "zsh", "tcsh")
FILES = (
    "config",
    "file",
    "files",
    "ckpt_path",
    "corpus",
    "tokenizer",
    "prompt_file",
    "init_from",
    "distill_from",
    "output",
    "figure",
    "page",
)
FOLDERS = ("run_dir", "folder", "first", "second", "run", "runs", "include_path", "cache_dir", "to")
"""Last parts of the names of options whose values are paths."""
WITH_OPTIONS_OF_FIT = ("prepare", "estimate", "show")
"""Verbs with options of their own beside those."""


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok completion", description=__doc__)
    parser.add_argument("shell", metavar="SHELL", help=" | ".join(SHELLS))
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the script."""
    shell = build_parser().parse(argv).shell
    if shell not in SHELLS:
        raise UserError(f"completion {shell}: expected one of {', '.join(SHELLS)}{nearest(shell, SHELLS)}")
    import shtab

    print(shtab.complete(everything(), shell))
    return 0


def everything() -> argparse.ArgumentParser:
    """Return one parser of all verbs and their options; it only completes."""
    from lightning_metatok.cli import VERBS

    whole = argparse.ArgumentParser(prog="lightning-metatok", allow_abbrev=False)
    whole.add_argument("--version", action="store_true", help="print the version")
    verbs = whole.add_subparsers()
    of_fit = list(trainer_actions())
    for verb, (module, does) in VERBS.items():
        one = verbs.add_parser(verb, help=escaped(does), allow_abbrev=False)
        build = getattr(importlib.import_module(module), "build_parser", None)
        own = [] if build is None else build()._actions
        add(one, own if build is not None and verb not in WITH_OPTIONS_OF_FIT else [*own, *of_fit])
    return whole


def trainer_actions() -> Iterator[argparse.Action]:
    """Yield the options of the Trainer's verbs, for text and for tasks."""
    from lightning_metatok.cli.dry_parser import parser_of
    from lightning_metatok.cli.kinds import KINDS

    for kind in KINDS:
        yield from parser_of(kind)._actions


def add(parser: argparse.ArgumentParser, actions: Iterable[argparse.Action]) -> None:
    """Add the options of `actions`, each once, with what can stand behind them."""
    import shtab

    known = {option for action in parser._actions for option in action.option_strings}
    for action in actions:
        named = [option for option in action.option_strings if option not in known]
        if (action.option_strings and not named) or action.help == argparse.SUPPRESS:
            continue
        known |= set(named)
        options: dict[str, Any] = {"help": escaped(str(action.help or ""))}
        takes_none = action.nargs == 0
        if takes_none:
            options["action"] = "store_true"
        elif (names := values(action)) is not None:
            options["choices"] = names
        added = parser.add_argument(*(named or [action.dest]), **options)
        last = action.dest.rpartition(".")[2]
        if not takes_none and last in (*FILES, *FOLDERS):
            added.complete = shtab.FILE if last in FILES else shtab.DIRECTORY  # type: ignore[attr-defined]


def values(action: argparse.Action) -> list[str] | None:
    """Return the names that an option takes, None where it takes others than names."""
    from lightning_metatok.cli.sweep import ACTIONS
    from lightning_metatok.registry import REGISTRIES

    if action.dest in REGISTRIES:
        return sorted(REGISTRIES[action.dest])
    if action.dest == "action":
        return list(ACTIONS)
    if action.dest == "shell":
        return list(SHELLS)
    hint = getattr(action, "_typehint", None)
    if hint is bool:
        return ["true", "false"]
    if get_origin(hint) is Literal:
        return [str(name) for name in get_args(hint)]
    if isinstance(action.choices, Sequence | Mapping):
        return [str(name) for name in action.choices]
    return None


def escaped(text: str) -> str:
    """The first line, for argparse, which fills in what follows a per cent sign."""
    return text.partition("\n")[0].replace("%", "%%")
