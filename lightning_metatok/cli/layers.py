"""Layers of a configuration: files and options in the order in which they are given, each laid over those before it.

jsonargparse lays them over each other key by key, but takes an option whose value is a mapping (`position_options`,
`task_options`, the arguments of a class) as one value: what an earlier layer said in it would be lost without a word.
Here such mappings are merged key by key, too, whether they stand in a file, as ``--KEY.NAME=VALUE`` or as
``--KEY={NAME: VALUE}``. `null`, where an option takes it, starts again.

Options belong to the name beside them: `position_options` to `position`, `task_options` to `task`,
`optimizer.options` to `optimizer.name`, `init_args` to `class_path`. A layer that changes the name drops what earlier
layers said for the old one, with a line that says so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser

from lightning_metatok.errors import UserError
from lightning_metatok.old_keys import renamed
from lightning_metatok.yaml_files import in_one_line, read_config, value_of

CONFIG_OPTIONS = ("--config", "-c")
OPTIONS = "_options"
"""Suffix of an option that belongs to the name without it."""
BESIDE = ".options"
"""Of one that belongs to the `name` in its group."""
CLASS, ARGUMENTS, MORE_ARGUMENTS = "class_path", "init_args", "dict_kwargs"
"""Of the mapping that stands for a class."""


Layer = list[tuple[str, Any]]
"""A file, or the options between two files: values by dotted key, as they stand there."""


def read_layers(argv: Sequence[str], known: Sequence[str], *, skip_unreadable: bool = False) -> list[Layer]:
    """Return the layers of a command line; `known`: names of all options. Files that cannot be read may be skipped.

    A value that is no YAML is left as text: whoever reads the option refuses it.

    Raises:
        UserError: a file cannot be read.
    """
    return [layer for _, layer in named_layers(argv, known, skip_unreadable=skip_unreadable)]


def named_layers(
    argv: Sequence[str], known: Sequence[str], *, skip_unreadable: bool = False
) -> list[tuple[str | None, Layer]]:
    """Return `read_layers`, each with the file that it is; None: options."""
    options = leaves(known)
    layers: list[tuple[str | None, Layer]] = [(None, [])]
    for name, value in _arguments(argv):
        if name in CONFIG_OPTIONS:
            with suppress(UserError) if skip_unreadable else nullcontext():
                layers += [(value, list(renamed(dotted(read_config(value), options)))), (None, [])]
        elif name.startswith("--"):
            layers[-1][1].extend(renamed(dotted({name[2:]: _value(value)}, options)))
    return [(file, layer) for file, layer in layers if layer]


def last_value(layers: Sequence[Layer], key: str) -> Any:
    """The value of the last layer that gives `key`, or None."""
    return next((value for layer in reversed(layers) for name, value in reversed(layer) if name == key), None)


def leaves(known: Sequence[str]) -> set[str]:
    """Keys that are options themselves, so that a mapping below them is their value, not a group of options."""
    groups = {".".join(key.split(".")[:n]) for key in known for n in range(1, key.count(".") + 1)}
    return set(known) - groups


def dotted(content: Mapping[str, Any], options: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every option and of what no option has."""
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and name not in options:
            yield from dotted(value, options, f"{name}.")
        else:
            yield name, value


def merged_mappings(
    layers: Sequence[Layer],
    parser: ArgumentParser,
    known: Sequence[str],
    say: Callable[[str], None],
) -> list[str]:
    """Return arguments that give what all layers say to each option whose value is a mapping.

    Args:
        say: is told, in a line, what was dropped because the name that it belongs to has changed.
    """
    actions, options = {action.dest: action for action in parser._actions}, leaves(known)
    arguments = []
    for key in sorted({found for layer in layers for k, _ in layer if (found := _owner(k, options)) is not None}):
        hint = getattr(actions[key], "_typehint", None)
        if hint is not None:
            mapping = (_plain if _is_mapping(hint) else _of_a_class)(layers, key, parser, say)
            arguments += [] if mapping is None else [f"--{key}={in_one_line(mapping)}"]
    return arguments


def _plain(
    layers: Sequence[Layer], key: str, parser: ArgumentParser, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """The mapping of all layers; None where it is that of the last, or none: then jsonargparse says what is wrong."""
    name = f"{key.removesuffix(BESIDE)}.name" if key.endswith(BESIDE) else key.removesuffix(OPTIONS)
    actions = {action.dest: action for action in parser._actions}
    current = parser.get_default(name) if name != key and name in actions else None
    value: dict[str, Any] = {}
    given, dropped, null = 0, False, False
    for layer in layers:
        names = [new for k, new in layer if k == name != key]
        if names and names[-1] != current:
            if value and (key, {}) not in layer:  # {} says that it is known
                say(f"{name}={names[-1]}, {current} before: {key}={in_one_line(value)} belonged to that and is dropped")
            dropped, value, current = dropped or bool(value), {}, names[-1]
        for new in _given(layer, key):
            given, null = given + 1, new is None
            if null:
                dropped, value = dropped or bool(value), {}
            elif isinstance(new, Mapping):
                value = _laid_over(value, new)
            else:
                return None
    if null:
        return None  # the last word, and a value of the option or refused
    return value if given > 1 or dropped else None


def _of_a_class(
    layers: Sequence[Layer], key: str, parser: ArgumentParser, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """A class and its arguments; None unless one of these is a mapping that more than one layer speaks of."""
    value: dict[str, Any] = {}
    shared = False
    for layer in layers:
        for given in _given(layer, key):
            new = _class(given)
            if new is None:
                value = {}
                continue
            if not isinstance(new, Mapping):
                return None  # a list is one value
            before = {part: value[part] for part in (ARGUMENTS, MORE_ARGUMENTS) if value.get(part)}
            if CLASS in value and CLASS in new and _short(value[CLASS]) != _short(new[CLASS]):
                if before:
                    was = f"{value[CLASS]} before: {in_one_line(before)}"
                    say(f"{key}={new[CLASS]}, {was} belonged to that and is dropped")
                value, shared = dict(new), False
                continue
            shared = shared or any(_meet(arguments, new.get(part)) for part, arguments in before.items())
            value = _laid_over(value, new)
    return value if shared else None


def _given(layer: Layer, key: str) -> Iterator[Any]:
    """What a layer gives to an option: its value, or a mapping with the one key in it that is given."""
    for k, value in layer:
        if k == key:
            yield value
        elif k.startswith(f"{key}."):
            for part in reversed(k[len(key) + 1 :].split(".")):
                value = {part: value}
            yield value


def _laid_over(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for name, value in new.items():
        before = merged.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            value = _laid_over(before, value)
        merged[name] = value
    return merged


def _meet(old: Any, new: Any) -> bool:
    """Whether a key has a mapping in both."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return False
    return any(isinstance(old.get(name), Mapping) and isinstance(value, Mapping) for name, value in new.items())


def _owner(key: str, options: set[str]) -> str | None:
    """The option that `key` is, or is a key in."""
    parts = key.split(".")
    return next((name for n in range(1, len(parts) + 1) if (name := ".".join(parts[:n])) in options), None)


def _class(value: Any) -> Any:
    """A class by its short notations as the mapping that jsonargparse makes of them."""
    if isinstance(value, str):
        return {CLASS: value}
    if isinstance(value, Mapping) and value and not value.keys() & {CLASS, ARGUMENTS, MORE_ARGUMENTS}:
        return {ARGUMENTS: value}
    return value


def _short(name: Any) -> str:
    return str(name).rpartition(".")[2]


def _is_mapping(hint: Any) -> bool:
    origin = get_origin(hint) or hint
    if isinstance(origin, type):
        return issubclass(origin, Mapping)
    return any(_is_mapping(part) for part in get_args(hint))


def _arguments(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, value) of ``--name=value`` and ``--name value``."""
    for place, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if equals and name.startswith("-"):
            yield name, value
        elif word.startswith("-") and place + 1 < len(argv) and not argv[place + 1].startswith("--"):
            yield name, argv[place + 1]


def _value(text: str) -> Any:
    try:
        return value_of(text)
    except yaml.YAMLError:
        return text
