"""The options of a family: read off its constructor, and checked before anything is built.

A family takes `Sizes` and states its options as keyword-only arguments with annotations and defaults:

    def __init__(self, sizes: Sizes, *, base: Annotated[float, above(1)] = 10000.0,
                 scaling: Literal["none", "linear"] = "none") -> None: ...

An annotation is bool, int, float, str or a Literal, `| None` or not, and may carry a `Rule`. What several options say
together is for the constructor to check, with `refuse`.
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


def refuse(key: str, value: Any, expected: str) -> NoReturn:
    """Raise the `UserError` that an option's value calls for."""
    raise UserError(f"model.position_options.{key}={value!r}: expected {expected}")


def check_options(name: str, family: type, options: Mapping[str, Any]) -> None:
    """Check options of the family `name`.

    Raises:
        UserError: there is no such option, or a value is of the wrong type or breaks its rule.
    """
    known = defaults(family)
    hints = get_type_hints(family.__init__, include_extras=True)  # type: ignore[misc]
    for key, value in options.items():
        if key not in known:
            some = f"one of {', '.join(known)}" if known else "no options"
            refuse(key, value, f"{some} for model.position={name!r}{nearest(str(key), known)}")
        _check(key, value, hints[key])


def defaults(family: type) -> dict[str, Any]:
    """The options of a family and their defaults."""
    parameters = inspect.signature(family).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _check(key: str, value: Any, hint: Any) -> None:
    rules: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        rules = tuple(rule for rule in rest if isinstance(rule, Rule))
    if get_origin(hint) in (Union, UnionType):
        if value is None:
            return
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        assert len(kinds) == 1, f"{key}: an option has one type, or None beside it"
        return _check(key, value, Annotated[kinds[0], *rules] if rules else kinds[0])
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if value not in choices:
            refuse(key, value, f"one of {', '.join(map(str, choices))}{nearest(str(value), map(str, choices))}")
        return None
    expected = rules[0].expected if rules else {bool: "true or false", int: "an integer", float: "a number"}.get(hint)
    if not _is(value, hint) or not all(rule.holds(value) for rule in rules):
        refuse(key, value, expected or f"a {hint.__name__}")
    return None


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)
