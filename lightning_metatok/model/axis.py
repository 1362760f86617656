"""An axis of the grammar of an arm: a key of the config, the classes that its values name, and their options.

    model.position=rotary    model.position_options={base: 500}        how places are told apart
    model.pattern=causal     model.pattern_options={}                  what self-attention may see
    model.mechanism=meta     model.mechanism_options={shared: true}    what extra tokens do in a block

A value is the name of a class, one a file, or a dotted path to one (`lightning_metatok.registry`). It states its
options as keyword-only arguments with annotations and defaults, which are read off its constructor and checked before
anything is built:

    def __init__(self, *, base: Annotated[float, above(1)] = 10000.0, kind: Literal["a", "b"] = "a") -> None: ...

An annotation is bool, int, float, str, list[int] or a Literal, `| None` or not, and may carry a `Rule`. What several
options say together, or options and the rest of the model, is for the class to check, with `refuse`.

Two axes more have their place here, the end of the softmax and its gate; they come with what they offer.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.registry import Registry

Kind = TypeVar("Kind")


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


class Axis(Generic[Kind]):
    """One axis.

    Attributes:
        key: of the config, under `model`.
        known: classes by name: this package's own and those of entry points.
    """

    def __init__(
        self, key: str, base: type[Kind], classes: Mapping[str, type[Kind]], *, given: tuple[str, ...] = ()
    ) -> None:
        """Offer classes.

        Args:
            key: of the config, under `model`.
            base: of all classes.
            classes: this package's own by name; what is added to it is offered, too.
            given: positional arguments that a class is built with, beside its options.
        """
        self.key, self.given = key, given
        self.known: Registry[Kind] = Registry(f"model.{key}", base, classes, group=f"{key}s")

    def find(self, name: str) -> type[Kind]:
        """Return the class that a name or a dotted path stands for. Raises as `Registry.resolve`."""
        return self.known.resolve(name)

    def check(self, name: str, options: Mapping[str, Any]) -> None:
        """Check a name and its options.

        Raises:
            UserError: there is no such class or option, or a value is of the wrong type or breaks its rule.
        """
        kind = self.find(name)
        known = defaults(kind)
        hints = get_type_hints(kind.__init__, include_extras=True)
        for key, value in options.items():
            if key not in known:
                some = f"one of {', '.join(known)}" if known else "no options"
                near = nearest(str(key), known) or self._owners(key)
                self.refuse(key, value, f"{some} for model.{self.key}={name!r}{near}")
            self._check_value(key, value, hints[key])
        try:
            inspect.signature(kind).bind(*self.given, **options)
        except TypeError as error:
            raise UserError(
                f"model.{self.key}={name!r}: {error}; expected a class that is built from "
                f"{' and '.join((*self.given, 'its options'))}"
            ) from error

    def filled(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return all options of a class, defaults filled in."""
        return {**defaults(self.find(name)), **options}

    def fixed(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that a trained checkpoint fixes, defaults filled in: all but `free_after_training`."""
        free: frozenset[str] = getattr(self.find(name), "free_after_training", frozenset())
        return {key: value for key, value in self.filled(name, options).items() if key not in free}

    def refuse(self, key: str, value: Any, expected: str) -> NoReturn:
        """Raise the `UserError` that an option's value calls for."""
        raise UserError(f"model.{self.key}_options.{key}={value!r}: expected {expected}")

    def _owners(self, key: Any) -> str:
        """Say which other names have the option."""
        owners = [name for name in self.known if key in defaults(self.known[name])]
        return f"; it belongs to {' and '.join(map(repr, owners))}" if owners else ""

    def _check_value(self, key: str, value: Any, hint: Any) -> None:
        rules: tuple[Any, ...] = ()
        if get_origin(hint) is Annotated:
            hint, *rest = get_args(hint)
            rules = tuple(rule for rule in rest if isinstance(rule, Rule))
        if get_origin(hint) in (Union, UnionType):
            if value is None:
                return
            kinds = [kind for kind in get_args(hint) if kind is not NoneType]
            assert len(kinds) == 1, f"{key}: an option has one type, or None beside it"
            self._check_value(key, value, Annotated[kinds[0], *rules] if rules else kinds[0])
        elif get_origin(hint) is Literal:
            choices = get_args(hint)
            if value not in choices:
                self.refuse(
                    key, value, f"one of {', '.join(map(str, choices))}{nearest(str(value), map(str, choices))}"
                )
        elif not _is(value, hint) or not all(rule.holds(value) for rule in rules):
            self.refuse(key, value, rules[0].expected if rules else EXPECTED.get(hint, f"a {hint}"))


EXPECTED: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
    list[int]: "a list of integers",
}


def defaults(kind: type) -> dict[str, Any]:
    """The options of a class and their defaults."""
    parameters = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def _is(value: Any, kind: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == list[int]:
        return isinstance(value, list) and all(_is(item, int) for item in value)
    return isinstance(value, kind)
