"""All options of `fit` with their types and defaults, as text: what a user can rely on, and what a change changes.

python -m tests.cli.option_surface     writes option_surface.txt beside this file (`make options`)
"""

import json
from argparse import SUPPRESS
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from lightning_metatok.cli.config_files import known_keys
from lightning_metatok.cli.dry_parser import parser_of
from lightning_metatok.cli.kinds import KINDS

FILE = Path(__file__).with_suffix(".txt")
RENEW = "make options"


def surface() -> str:
    """A line an option: of all kinds of data first, then of each."""
    of_kind = {kind: dict(lines_of(kind)) for kind in KINDS}
    common = {key: line for key, line in of_kind["text"].items() if all(of.get(key) == line for of in of_kind.values())}
    parts = {"every kind of data": common}
    parts |= {kind: {key: line for key, line in of.items() if key not in common} for kind, of in of_kind.items()}
    return "\n".join(
        "".join(f"{line}\n" for line in (f"# {name}", *(of[key] for key in sorted(of)))) for name, of in parts.items()
    )


def lines_of(kind: str) -> Iterator[tuple[str, str]]:
    """(key, "key: type = default") of every option of a kind of data."""
    parser = parser_of(kind)
    known = set(known_keys(parser))
    for action in parser._actions:
        if action.dest in known and action.default != SUPPRESS and action.dest != "config":  # no groups, no --help
            hint = getattr(action, "_typehint", None) or action.type
            yield action.dest, f"{action.dest}: {name_of(hint)} = {default_of(parser.get_default(action.dest))}"


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


if __name__ == "__main__":
    FILE.write_text(surface(), encoding="utf-8")
