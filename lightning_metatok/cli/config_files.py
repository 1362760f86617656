"""Refuse a config file or an option that names an unknown key, with the file and the nearest right key.

jsonargparse refuses unknown keys too, but names neither the file nor what was probably meant.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from lightning_metatok.cli.layers import dotted, leaves
from lightning_metatok.errors import UserError, nearest
from lightning_metatok.yaml_files import read_config


def known_keys(parser: ArgumentParser) -> list[str]:
    """Dotted names of every option of `parser`, but for those that only print something."""
    names = {action.dest for action in parser._actions} - {"help", "print_config"}
    return sorted(name for name in names if not name.endswith(".help"))  # of the arguments of a class


def values_of(argv: Sequence[str], names: tuple[str, ...]) -> list[str]:
    """Values of an option given as ``--name value`` or ``--name=value``."""
    found = []
    for i, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name in names:
            if equals:
                found.append(value)
            elif i + 1 < len(argv):
                found.append(argv[i + 1])
    return found


def without_options(argv: Sequence[str], names: tuple[str, ...]) -> list[str]:
    """Return `argv` without the options of these names and their values."""
    kept, skip = [], False
    for argument in argv:
        name, equals, _ = argument.partition("=")
        if skip and not argument.startswith("--"):
            skip = False
            continue
        skip = name in names and not equals
        if name not in names:
            kept.append(argument)
    return kept


def check_config_files(paths: Iterable[str], known: Sequence[str]) -> None:
    """Read every file and check its keys.

    Raises:
        UserError: no such file, no YAML mapping, or a key that no option has.
    """
    for name in paths:
        path = Path(name)
        if not os.path.isfile(name):
            siblings = [str(p) for p in path.parent.glob("*.y*ml")] if os.path.isdir(path.parent) else []
            raise UserError(f"--config={name}: no such file{nearest(name, siblings)}")
        for key, _ in dotted(read_config(name), leaves(known)):
            if not _is_known(key, known):
                raise UserError(f"{name}: unknown key '{key}'{nearest(key, _candidates(known))}")


def explain(message: str, known: Sequence[str]) -> str:
    """jsonargparse's message as one line, with the nearest key where the message says that one is unknown."""
    line = one_line(message)
    unknown = re.match(r"unrecognized arguments: --?([\w.]+)", line, re.IGNORECASE)
    if unknown:
        return f"unknown option '--{unknown[1]}'{nearest(unknown[1], _candidates(known))}"
    stray = re.match(r"unrecognized arguments: (.*)", line, re.IGNORECASE)
    if stray:
        return f"{stray[1]}: no option; expected --KEY=VALUE"
    expected = re.match(r'Parser key "([\w.]+)": (.*)', line)
    if expected:
        key, rest = expected[1], expected[2]
        wanted = re.match(r"Expected an? (?:<class '([\w.]+)'>|(.*?))\. Got value: (.*)$", rest)
        if wanted:
            kind = (wanted[1] or wanted[2]).replace("typing.", "").replace("Literal", "one of ")
            return f"{key}={wanted[3]}: expected {kind}"
        missing = re.search(r"arguments are required: (\w+).*class_path='(?:\w+\.)*(\w+)'", rest)
        if missing:
            return f"{key}={missing[2]}: {missing[1]} is missing; expected --{key}.{missing[1]}=VALUE, too"
        group = re.match(r"Unable to load config '(.*?)' - ", rest)
        if group:
            return f"{key}={group[1]}: expected keys and values, as in --{key}.NAME=VALUE"
        union = re.search(r"Subtypes: \[(.*?)\] Errors:.* Given value: (.*)$", rest)
        if union:
            kinds = re.sub(r"<class '(?:[\w.]+\.)?(\w+)'>", r"\1", union[1]).replace("NoneType", "null")
            kinds = re.sub(r"(?:[a-z_]+\.)+(\w+)", r"\1", kinds).replace("Literal", "one of ")
            return f"{key}={union[2]}: expected {kinds}"
        return f"{key}: {rest}"
    return line


def one_line(text: str) -> str:
    """Text without line breaks and runs of blanks."""
    return " ".join(text.split())


def _is_known(key: str, known: Sequence[str]) -> bool:
    return key in known or any(other.startswith(f"{key}.") for other in known)


def _candidates(known: Sequence[str]) -> list[str]:
    groups = {".".join(key.split(".")[:i]) for key in known for i in range(1, key.count(".") + 1)}
    return [*known, *sorted(groups)]
