"""Whether a configuration that came with a checkpoint may be obeyed: what it names is imported, which runs its code."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from jsonargparse import ArgumentParser

from lightning_metatok.cli.layers import CLASS, Layer, dotted, leaves
from lightning_metatok.errors import UserError
from lightning_metatok.registry import foreign_names

TRUSTED = ("lightning_metatok", "lightning", "torch", "torchmetrics")
"""Packages that are imported anyway."""
OPTION = "--trust"


def check_trusted(content: Mapping[str, Any], source: str, parser: ArgumentParser) -> None:
    """Refuse a configuration that has code imported which is neither this project's nor its libraries'.

    Raises:
        UserError: it names them, and how to allow it.
    """
    actions = {action.dest: action for action in parser._actions}
    options = leaves(list(actions))
    named: list[str] = []
    for key, value in dotted(content, options):
        named += foreign_names(key, value)
        hint = getattr(actions.get(key), "_typehint", None)
        if hint is not None:
            named += _named(value, anywhere=_takes_a_class(hint))
        elif key not in options and isinstance(value, str):  # the name of a file to read the group from
            named.append(value)
    _refuse(named, source)


def check_trusted_names(values: Mapping[str, Any], own: Sequence[Layer], source: str) -> None:
    """Refuse names of code outside this package, such as that of a positional encoding, that the user did not give.

    Args:
        values: the whole configuration by dotted key, ${...} followed.
        own: layers of what the user gave.
        source: of the others.

    Raises:
        UserError: it names them, and how to allow it.
    """
    given = {key for layer in own for key, _ in layer}
    _refuse([n for key, value in values.items() if key not in given for n in foreign_names(key, value)], source)


def _refuse(named: Sequence[str], source: str) -> None:
    if named:
        raise UserError(
            f"{source}: expected code of {', '.join(TRUSTED)} alone, and it names {', '.join(dict.fromkeys(named))}, "
            f"which would be imported and run; {OPTION} allows it, if you know who wrote it"
        )


def _named(value: Any, *, anywhere: bool) -> Iterator[str]:
    """Texts in a value that stand for a class of another package, or for a file that may name one."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _named(one, anywhere=anywhere or key == CLASS)
    elif isinstance(value, list):
        for one in value:
            yield from _named(one, anywhere=anywhere)
    elif anywhere and isinstance(value, str) and _is_foreign(value):
        yield value


def _is_foreign(text: str) -> bool:
    package, _, _ = text.partition(".")
    is_path = re.fullmatch(r"\w+(\.[^\W\d]\w*)+", text) is not None
    is_file = text.endswith((".yaml", ".yml", ".json", ".jsonnet", ".toml"))
    return (is_path and package not in TRUSTED) or is_file or "${" in text


def _takes_a_class(hint: Any) -> bool:
    origin = get_origin(hint) or hint
    if isinstance(origin, type) and origin.__module__ not in ("builtins", "types", "typing", "collections.abc"):
        return True
    return any(_takes_a_class(part) for part in get_args(hint) if not isinstance(part, str))
