"""The options of a parser with their types and defaults, as text."""

import json
from argparse import SUPPRESS
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser

from lightning_metatok.cli.config_files import known_keys


def typed(parser: ArgumentParser) -> Iterator[tuple[str, str, str]]:
    """Yield (key, type, default) of every option that is a key of a configuration."""
    known = set(known_keys(parser))
    for action in parser._actions:
        if action.dest in known and action.default != SUPPRESS and action.dest != "config":  # no groups, no --help
            hint = getattr(action, "_typehint", None) or action.type
            yield action.dest, name_of(hint), default_of(parser.get_default(action.dest))


def name_of(hint: Any) -> str:
    """A type as it is written, without the modules that classes are in."""
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(name_of(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return "|".join(map(str, get_args(hint)))
    if (parts := get_args(hint)) and get_origin(hint) is not None:
        return f"{name_of(get_origin(hint))}[{', '.join(map(name_of, parts))}]"
    if hint in (None, NoneType):
        return "null" if hint is NoneType else "text"
    return str(getattr(hint, "__name__", hint)).lower() if hint is Any else str(getattr(hint, "__name__", hint))


def default_of(value: Any) -> str:
    """A default as in YAML."""
    return json.dumps(value, default=str, ensure_ascii=False)
