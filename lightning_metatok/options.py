"""Options of a class that a configuration names: stated by its constructor, and checked before anything is built.

    model.position=rotary              model.position_options={base: 500}
    data.meta_placement=fixed          data.meta_placement_options={slots: [0, 16]}

A class states its options as keyword-only arguments with annotations, most with defaults:

    def __init__(self, *, base: Annotated[float, above(1)] = 10000.0, kind: Literal["a", "b"] = "a") -> None: ...

An annotation is bool, int, float, str, list[int] or a Literal, `| None` or not, and may carry a `Rule`.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from lightning_metatok.errors import UserError, nearest


@dataclass(frozen=True)
class Rule:
    """What a value must be beyond its type."""

    expected: str
    """Completes "expected ..."."""

    holds: Callable[[Any], bool]


def above(low: float) -> Rule:
    """A number above `low`."""
    return Rule(f"a number above {low:g}", lambda value: value > low)


def at_least(low: float) -> Rule:
    """A number that is `low` or more."""
    return Rule(f"{low:g} or more", lambda value: value >= low)


EXPECTED: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
    list[int]: "a list of integers",
}


def defaults(kind: type) -> dict[str, Any]:
    """The options of a class and their defaults; those that have none are left out."""
    return {name: value for name, value in _stated(kind).items() if value is not inspect.Parameter.empty}


def check(
    key: str,
    name: str,
    kind: type,
    options: Mapping[str, Any],
    *,
    others: Mapping[str, type] | None = None,
) -> None:
    """Check the options of the class `kind`, which `key` calls `name`; `others`: what else it may be, by name.

    Raises:
        UserError: there is no such option, one is missing, or a value is of the wrong type or breaks its rule.
    """
    known = _stated(kind)
    hints = get_type_hints(kind.__init__, include_extras=True)  # type: ignore[misc]
    for option, value in options.items():
        if option not in known:
            some = f"one of {', '.join(known)}" if known else "no options"
            near = nearest(str(option), known) or _owners(option, others or {})
            refuse(key, option, value, f"{some} for {key}={name!r}{near}")
        _check_value(key, option, value, hints[option])
    for option, default in known.items():
        if default is inspect.Parameter.empty and option not in options:
            rules = [part for part in get_args(hints[option])[1:] if isinstance(part, Rule)]
            expected = f", {rules[0].expected}" if rules else ""
            raise UserError(f"{key}={name!r}: expected {key}_options.{option}{expected}")


def refuse(
    key: str,
    option: str,
    value: Any,
    expected: str,
) -> NoReturn:
    """Raise the `UserError` that the value of an option of `key` calls for."""
    raise UserError(f"{key}_options.{option}={value!r}: expected {expected}")


def _owners(option: Any, others: Mapping[str, type]) -> str:
    owners = [name for name, kind in others.items() if option in _stated(kind)]
    return f"; it belongs to {' and '.join(map(repr, owners))}" if owners else ""


def _stated(kind: type) -> dict[str, Any]:
    parameters = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _check_value(key: str, option: str, value: Any, hint: Any) -> None:
    rules: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        rules = tuple(rule for rule in rest if isinstance(rule, Rule))
    if get_origin(hint) in (Union, UnionType):
        if value is None:
            return
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        assert len(kinds) == 1, f"{option}: an option has one type, or None beside it"
        _check_value(key, option, value, Annotated[kinds[0], *rules] if rules else kinds[0])
    elif get_origin(hint) is Literal:
        choices = get_args(hint)
        if value not in choices:
            listed = f"one of {', '.join(map(str, choices))}{nearest(str(value), map(str, choices))}"
            refuse(key, option, value, listed)
    elif not _is(value, hint) or not all(rule.holds(value) for rule in rules):
        refuse(key, option, value, rules[0].expected if rules else EXPECTED.get(hint, f"a {hint}"))


def _is(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == list[int]:
        return isinstance(value, list) and all(_is(item, int) for item in value)
    return isinstance(value, kind)
