"""The one reader of YAML: configurations, sweep files and config.yaml of run folders mean the same number by 1e-3.

Strict, and bounded in size, depth and what anchors expand to: PyYAML keeps the last of two equal keys without a word,
and what reads the file afterwards walks every alias again, so nine lines of anchors become billions of values.
"""

import os
import re
from collections.abc import Mapping, Sequence
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

_FLOAT, _TIMESTAMP = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"
_NUMBER = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    |[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
"""YAML 1.2 and everybody's intuition: 1e-3 is a number. To YAML 1.1 it is text, as it has neither a dot nor a sign."""


_REFERENCE = re.compile(r"\$\{(\.*)([A-Za-z_]\w*(?:\.\w+)*)\}")
WITH_MARKS = "with_marks"
"""``${with_marks:${data.block_size}}``: see `with_marks`."""
_WITH_MARKS = re.compile(rf"\$\{{{WITH_MARKS}:\s*(.+?)\s*\}}")


class Reader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader, in C where it was built with it, with numbers as above and dates as the text they are."""


Reader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _FLOAT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Reader.add_implicit_resolver(_FLOAT, _NUMBER, list("-+0123456789."))
Reader.add_constructor(_TIMESTAMP, lambda reader, node: node.value)


class Writer(yaml.SafeDumper):
    """Text that looks like a number to `Reader` stands in quotes, so that it comes back as text."""


Writer.yaml_implicit_resolvers = Reader.yaml_implicit_resolvers


def as_text(content: Any) -> str:
    """The YAML that `Reader` reads as `content`, a key a line, in the order given."""
    return str(yaml.dump(content, Dumper=Writer, allow_unicode=True, sort_keys=False, default_flow_style=False))


def in_one_line(content: Any) -> str:
    """The same as one line, as on a command line."""
    text = yaml.dump(content, Dumper=Writer, allow_unicode=True, sort_keys=False, default_flow_style=True, width=10**9)
    return str(text).removesuffix("...\n").strip()


def read_config(name: str, where: str | None = None) -> Mapping[str, Any]:
    """Return the keys and values of the file `name`; `where` is how messages call it, ``--config=NAME`` unless given.

    Raises:
        UserError: no UTF-8, no YAML mapping, a key twice, a key that is no text, or a file beyond the bounds above.
    """
    path, where = Path(name), where or f"--config={name}"
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
    return read_text(text, where)


def read_text(text: str, where: str) -> Mapping[str, Any]:
    """Return the keys and values of a YAML text, with the checks of `read_config`."""
    try:
        content = _strictly(text, where, Reader)
    except (yaml.YAMLError, *CONSTRUCTORS) as error:  # 2026-13-45 is no date, for PyYAML
        place, reason = _why(error, text, where)
        raise UserError(f"{where}{place}: not YAML: {reason}; expected keys and values") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{where}: expected keys and values, got {_kind(content)}")
    return content


def with_marks(source_tokens: int) -> int:
    """Return the positions of a block of `source_tokens` with as many meta-tokens as there may be: half as many again.

    A table of positions of that size holds the blocks of every arm, and is equally large in all of them.
    """
    return source_tokens + source_tokens // 2


def followed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content` with each value ``${a.b}`` or ``${.b}`` replaced by the one that it points at.

    ``${with_marks:...}`` is followed, too. What is no such reference stays as it is: ``${oc.env:KEY}``, a reference
    inside other text or to nothing. For what reads many configurations that `fit` has parsed; OmegaConf, which knows
    all of it, is slow.
    """

    def at(path: Sequence[str]) -> Any:
        found: Any = content
        for part in path:
            if not isinstance(found, Mapping) or part not in found:
                raise LookupError
            found = found[part]
        return found

    def follow(value: Any, path: tuple[str, ...], seen: tuple[str, ...] = ()) -> Any:
        if isinstance(value, Mapping):
            return {key: follow(one, (*path, key), seen) for key, one in value.items()}
        if isinstance(value, str) and (room := _WITH_MARKS.fullmatch(value)) and value not in seen:
            size = follow(room[1], path, (*seen, value))
            size = int(size) if isinstance(size, str) and size.isdigit() else size
            return with_marks(size) if isinstance(size, int) else value
        pointer = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if pointer is None or value in seen:
            return value
        up, names = len(pointer[1]), tuple(pointer[2].split("."))
        target = (*path[: len(path) - up], *names) if up else names
        try:
            return follow(at(target), target, (*seen, value))
        except LookupError:
            return value

    return {key: follow(value, (key,)) for key, value in content.items()}


def value_of(text: str) -> Any:
    """Return one value as it stands after ``--KEY=``: a number, a list, a mapping, or else text.

    Raises:
        yaml.YAMLError: no YAML.
    """
    try:
        return yaml.load(text, Loader=Reader)
    except CONSTRUCTORS as error:
        raise yaml.YAMLError(" ".join(str(error).split())) from error


def _strictly(text: str, where: str, kind: Any) -> Any:
    _check_depth(text, where, kind)
    reader = kind(text)
    try:
        node = reader.get_single_node()
        _check_node(node, where, {}, (), reader)
        return None if node is None else reader.construct_document(node)
    finally:
        reader.dispose()


def _check_depth(text: str, where: str, kind: Any) -> None:
    """Without recursion, as the reader that follows recurses once a level."""
    depth = 0
    for event in yaml.parse(text, kind):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            line = event.start_mark.line + 1
            raise UserError(f"{where}, line {line}: more than {DEEPEST} levels deep; expected {DEEPEST} at most")


def _check_node(node: yaml.Node | None, where: str, sizes: dict[int, int], above: tuple[int, ...], reader: Any) -> int:
    """Return how many values `node` stands for; each node is walked once, its size is remembered."""
    if node is None or isinstance(node, yaml.ScalarNode):
        if node is not None and node.tag == _TIMESTAMP:
            yaml.constructor.SafeConstructor.construct_yaml_timestamp(reader, node)  # whether there is such a day
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
        size += _check_node(value, where, sizes, above, reader)
        if size > MOST_VALUES:
            raise UserError(f"{where}, line {line}: anchors expand to too much; expected {MOST_VALUES} values at most")
    sizes[id(node)] = size
    return size


def _why(error: Exception, text: str, where: str) -> tuple[str, str]:
    """Place and reason, without the excerpt of the file; the reader in Python says more precisely what is wrong."""
    if isinstance(error, yaml.YAMLError):
        try:
            _strictly(text, where, yaml.SafeLoader)
        except (yaml.YAMLError, *CONSTRUCTORS) as better:
            error = better
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return f", line {mark.line + 1}" if mark else "", " ".join(str(reason).split())


def _kind(content: Any) -> str:
    return "nothing" if content is None else f"{type(content).__name__}"
