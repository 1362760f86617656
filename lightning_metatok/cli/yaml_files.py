"""Read a configuration that somebody else wrote: strict YAML, bounded in size, depth and what its anchors expand to.

PyYAML keeps the last of two equal keys without a word, and what reads the file afterwards walks every alias again, so
nine lines of anchors become billions of values.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lightning_metatok.errors import UserError

CONSTRUCTORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
"""What PyYAML raises where a tag and its value do not fit: `!!int ''` is an IndexError."""
LARGEST_FILE = 1 << 20
"""Bytes."""
DEEPEST = 32
"""Levels of mappings and lists."""
MOST_VALUES = 100_000
"""Keys and values, each alias counted as often as it is used."""


def read_config(name: str) -> Mapping[str, Any]:
    """Return the keys and values of the file `name`.

    Raises:
        UserError: no UTF-8, no YAML mapping, a key twice, a key that is no text, or a file beyond the bounds above.
    """
    path, where = Path(name), f"--config={name}"
    if not os.path.isfile(name):  # opening a pipe would wait for ever
        raise UserError(f"{where}: no such file")
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise UserError(f"{where}: {size} bytes; expected a configuration of at most {LARGEST_FILE}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        found = error.object[error.start]
        raise UserError(f"{where}, line {line}: byte 0x{found:02x} is not UTF-8; expected text in UTF-8") from error
    except OSError as error:
        raise UserError(f"{where}: cannot be read: {error.strerror}; expected a YAML file") from error
    try:
        _check_depth(text, where)
        _check_node(yaml.compose(text, yaml.SafeLoader), where, {}, ())
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}{_place(error)}: not YAML: {_problem(error)}; expected keys and values") from error
    except CONSTRUCTORS as error:  # 2026-13-45 is no date, for PyYAML
        raise UserError(f"{where}: not YAML: {' '.join(str(error).split())}; expected keys and values") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{where}: expected keys and values, got {_kind(content)}")
    return content


def _check_depth(text: str, where: str) -> None:
    """Without recursion, as the reader that follows recurses once a level."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            line = event.start_mark.line + 1
            raise UserError(f"{where}, line {line}: more than {DEEPEST} levels deep; expected {DEEPEST} at most")


def _check_node(node: yaml.Node | None, where: str, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    """Return how many values `node` stands for; each node is walked once, its size is remembered."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    line = node.start_mark.line + 1
    if id(node) in above:
        raise UserError(f"{where}, line {line}: an anchor that holds itself; expected values that end")
    if id(node) in sizes:
        return sizes[id(node)]
    lines: dict[str, int] = {}
    above, size = (*above, id(node)), 1
    for item in node.value:
        if isinstance(node, yaml.MappingNode):
            key, value = item
            at = key.start_mark.line + 1
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                shown = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
                raise UserError(f"{where}, line {at}: key {shown}: expected a name as key, got {key.tag[18:]}")
            if key.value in lines and key.tag != "tag:yaml.org,2002:merge":
                raise UserError(
                    f"{where}, line {at}: key '{key.value}' stands on line {lines[key.value]} already; "
                    "expected each key once"
                )
            lines[key.value] = at
        else:
            value = item
        size += _check_node(value, where, sizes, above)
        if size > MOST_VALUES:
            raise UserError(f"{where}, line {line}: anchors expand to too much; expected {MOST_VALUES} values at most")
    sizes[id(node)] = size
    return size


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def _problem(error: yaml.YAMLError) -> str:
    """PyYAML's reason, without the excerpt of the file and its name."""
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return " ".join(str(reason).split())


def _kind(content: Any) -> str:
    return "nothing" if content is None else f"{type(content).__name__}"
