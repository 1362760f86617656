"""Keys of earlier versions: read, as long as they say something that other keys say now.

    meta_attention: false              mechanism: none
    meta_over: all                     mechanism: matched
    meta_fill, meta_layers, _shared    mechanism_options: {fill: , layers: , shared: }

    data.meta_positions: [0, 5]        data.meta_placement_options: {slots: [0, 5]}

They come from checkpoints, and from files and command lines that were written for an earlier version. `Mechanisms`
reads several of these one after the other, each of which may say a part in old keys or in new ones. Where a key has
only another name now (`RENAMED`), it is read under that.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lightning_metatok.errors import UserError

OLD = {"meta_attention": True, "meta_over": "meta", "meta_fill": None, "meta_shared": False, "meta_layers": None}
"""Key -> what it was by default."""
OPTIONS = {"meta_layers": "layers", "meta_shared": "shared", "meta_fill": "fill"}
NEW = ("mechanism", "mechanism_options")
RENAMED = {"data.meta_positions": "data.meta_placement_options.slots"}
"""Old dotted key -> new one, where the value is the same; null said nothing."""


class Mechanisms:
    """The mechanism that parts of a configuration name together, later ones over earlier ones."""

    def __init__(self) -> None:
        self.old: dict[str, Any] = dict(OLD)
        self.new: dict[str, Any] = {"mechanism": "meta", "mechanism_options": {}}

    def add(self, part: Mapping[str, Any]) -> None:
        """Take up the old and new keys among `part`, keys of `TransformerConfig` and their values.

        A mapping of options takes the place of the one before; ``mechanism_options.layers`` adds one to it.

        Raises:
            UserError: an old key with a mechanism that did not exist when there were old keys, or with a wrong value.
        """
        new = {key: value for key, value in part.items() if key.partition(".")[0] in NEW and value is not None}
        if new:
            self.new |= {key: value for key, value in new.items() if key in NEW}
            single = {key.partition(".")[2]: value for key, value in new.items() if key not in NEW}
            self.new["mechanism_options"] = {**self.new["mechanism_options"], **single}
            self.old = _in_old_keys(self.new) or {}
        if not any(key in part for key in OLD):
            return
        if not self.old:
            key = next(key for key in OLD if key in part)
            raise UserError(
                f"model.{key}={part[key]}: a key of earlier versions, which says nothing with "
                f"model.mechanism={self.new['mechanism']!r}; expected model.mechanism and model.mechanism_options"
            )
        self.old |= {key: part[key] for key in OLD if key in part}
        self.new = _in_new_keys(self.old)


def translated(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of `TransformerConfig`, such as a checkpoint's, with new keys in place of old ones.

    Raises:
        UserError: an old key beside a new one, or with a value that never was one.
    """
    old = [key for key in OLD if key in options]
    if not old:
        return dict(options)
    if new := [key for key in NEW if key in options]:
        raise UserError(f"model.{old[0]}={options[old[0]]}: expected no key of earlier versions beside model.{new[0]}")
    read = Mechanisms()
    read.add(options)
    # What there was before patterns were a choice.
    return {"pattern": "causal", "pattern_options": {}} | without(options) | read.new


def translated_flat(options: Mapping[str, Any], prefix: str = "model.") -> dict[str, Any]:
    """Return `translated` for dotted keys, those of the model with `prefix`; an empty mapping of options is a text."""
    options = _renamed_flat(options)
    if not any(f"{prefix}{key}" in options for key in OLD):
        return dict(options)
    mine = {key.removeprefix(prefix): value for key, value in options.items() if key.startswith(prefix)}
    others = {key: value for key, value in options.items() if not key.startswith(prefix)}
    found: dict[str, Any] = {}
    for key, value in translated(mine).items():
        if isinstance(value, dict):
            found |= {f"{key}.{name}": item for name, item in value.items()} or {key: str(value)}
        else:
            found[key] = value
    return others | {f"{prefix}{key}": value for key, value in found.items()}


def renamed(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) under the names that keys have now."""
    for key, value in pairs:
        if key not in RENAMED:
            yield key, value
        elif value is not None:
            yield RENAMED[key], value


def renamed_in(group: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys and values under `group` of a file, under the names that keys have now."""
    found = {key: value for key, value in options.items() if f"{group}.{key}" not in RENAMED}
    for old, new in RENAMED.items():
        key = old.removeprefix(f"{group}.")
        if key in options and options[key] is not None:
            owner, _, name = new.removeprefix(f"{group}.").partition(".")
            found[owner] = {**(found.get(owner) or {}), name: options[key]}
    return found


def _renamed_flat(options: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(renamed(options.items()))
    for old, new in RENAMED.items():
        if old in options and options[old] is None:
            found.setdefault(new.rpartition(".")[0], str({}))
    return found


def without(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return `options` without old keys."""
    return {key: value for key, value in options.items() if key not in OLD}


def old_options() -> Iterable[str]:
    """Dotted names of the old keys, as options have them."""
    return (*(f"model.{key}" for key in OLD), *RENAMED)


def _in_new_keys(old: Mapping[str, Any]) -> dict[str, Any]:
    for key, expected in (("meta_attention", "bool"), ("meta_shared", "bool")):
        if not isinstance(old[key], bool):
            raise UserError(f"model.{key}={old[key]}: expected {expected}; now model.mechanism says it")
    if old["meta_over"] not in ("meta", "all"):
        raise UserError(f"model.meta_over={old['meta_over']!r}: expected one of meta, all; now model.mechanism says it")
    if not old["meta_attention"]:
        return {"mechanism": "none", "mechanism_options": {}}
    given = {new: old[key] for key, new in OPTIONS.items() if old[key] != OLD[key]}
    if old["meta_over"] == "meta":
        return {"mechanism": "meta", "mechanism_options": given}
    if "fill" in given:
        raise UserError(
            f"model.meta_fill={given['fill']}: expected no value with model.meta_over='all', "
            "which is model.mechanism='matched' now"
        )
    return {"mechanism": "matched", "mechanism_options": given}


def _in_old_keys(new: Mapping[str, Any]) -> dict[str, Any] | None:
    """None where old keys cannot say it."""
    name, options = new["mechanism"], new["mechanism_options"]
    if name not in ("none", "meta", "matched") or not set(options) <= set(OPTIONS.values()):
        return None
    given = {key: options[new] for key, new in OPTIONS.items() if new in options}
    return OLD | given | {"meta_attention": name != "none", "meta_over": "all" if name == "matched" else "meta"}
