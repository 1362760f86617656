"""Files and command lines of earlier versions: old keys of the model are said in new ones before anything is parsed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from lightning_metatok.errors import UserError
from lightning_metatok.old_keys import NEW, OLD, RENAMED, Mechanisms, renamed_in, without
from lightning_metatok.yaml_files import read_config, value_of

GROUP = "model"


def current(args: Sequence[str], config_options: tuple[str, ...]) -> list[str]:
    """Return arguments in which no option is an old one; where files or options said something in old keys, the
    mechanism that all of them name together stands at the end, over all files.

    Files are read as they are: what is parsed of them must leave old keys out (`without_old_keys`).

    Raises:
        UserError: an old key has a wrong value, or says nothing with the mechanism that is named in new keys.
    """
    args = list(_under_new_names(args))
    kept: list[str] = []
    read, found_old = Mechanisms(), False
    for part, argument in _parts(args, config_options):
        old = any(key in part for key in OLD)
        found_old |= old
        read.add(part)
        if not (old and argument[0] not in config_options and not argument[0].startswith(_with_value(config_options))):
            kept += argument
    if not found_old:
        return list(args)
    said = read.new
    return [*kept, f"--model.mechanism={said['mechanism']}", f"--model.mechanism_options={json.dumps(said[NEW[1]])}"]


def without_old_keys(config: Any) -> Any:
    """Return what a file says without the model's old keys, and with each key that has another name now under that."""
    if not isinstance(config, Mapping):
        return config
    found = dict(config)
    if isinstance(model := config.get(GROUP), Mapping):
        found[GROUP] = without(model)
    for group in {key.partition(".")[0] for key in RENAMED}:
        if isinstance(config.get(group), Mapping):
            found[group] = renamed_in(group, config[group])
    return found


def _under_new_names(args: Sequence[str]) -> Iterator[str]:
    for word in args:
        name, equals, value = word.partition("=")
        if name.removeprefix("--") not in RENAMED or not name.startswith("--"):
            yield word
        elif value != "null":
            yield f"--{RENAMED[name.removeprefix('--')]}{equals}{value}"


def _parts(args: Sequence[str], config_options: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """What each argument says of the model's mechanism, and the argument with its value."""
    i = 0
    while i < len(args):
        name, equals, value = args[i].partition("=")
        argument = [args[i]]
        key = name.removeprefix(f"--{GROUP}.")
        of_mechanism = name.startswith("--") and (key in OLD or key.split(".")[0] in NEW) and key != name
        if (of_mechanism or name in config_options) and not equals and i + 1 < len(args):
            value = args[i + 1]
            argument.append(value)
        i += len(argument)
        if name in config_options:
            yield _of_file(value), argument
        elif of_mechanism:
            yield _of_option(key, value, name), argument
        else:
            yield {}, argument


def _of_file(name: str) -> dict[str, Any]:
    try:
        model = read_config(name).get(GROUP)
    except UserError:  # what is wrong with the file is said by whoever checks it
        return {}
    return dict(model) if isinstance(model, Mapping) else {}


def _of_option(key: str, value: str, name: str) -> dict[str, Any]:
    try:
        read = value_of(value)
    except yaml.YAMLError as error:
        raise UserError(f"{name}={value}: not a YAML value") from error
    if isinstance(read, str) and key.endswith("meta_fill"):
        read = _number(read)
    return {key: read}


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _with_value(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}=" for name in names)
