"""An axis of the grammar of an arm: a key of the config, the classes that its values name, and their options.

    model.position=rotary    model.position_options={base: 500}        how places are told apart
    model.pattern=causal     model.pattern_options={}                  what self-attention may see
    model.mechanism=meta     model.mechanism_options={shared: true}    what extra tokens do in a block

A value is the name of a class, one a file, or a dotted path to one (`lightning_metatok.registry`).
`lightning_metatok.options` says how it states its options. What several options say together, or options and the rest
of the model, is for the class to check, with `refuse`.

Two axes more have their place here, the end of the softmax and its gate; they come with what they offer.
"""

import inspect
from collections.abc import Mapping
from typing import Any, Generic, NoReturn, TypeVar

from lightning_metatok import options as stated
from lightning_metatok.errors import UserError
from lightning_metatok.options import Rule, above, at_least, defaults
from lightning_metatok.registry import Registry

__all__ = ["Axis", "Rule", "above", "at_least", "defaults"]

Kind = TypeVar("Kind")


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
        stated.check(f"model.{self.key}", name, kind, options, others=self.known)
        try:
            inspect.signature(kind).bind(*self.given, **options)
        except TypeError as error:
            raise UserError(
                f"model.{self.key}={name!r}: {error}; expected a class that is built from "
                f"{' and '.join((*self.given, 'its options'))}"
            ) from error

    def build(self, name: str, /, **options: Any) -> Kind:
        """Build the class `name` of its own options.

        Raises:
            UserError: no class has that name, or it cannot take these options.
        """
        self.check(name, options)
        return self.find(name)(**options)

    def filled(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return all options of a class, defaults filled in."""
        return {**defaults(self.find(name)), **options}

    def fixed(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that a trained checkpoint fixes, defaults filled in: all but `free_after_training`."""
        free: frozenset[str] = getattr(self.find(name), "free_after_training", frozenset())
        return {key: value for key, value in self.filled(name, options).items() if key not in free}

    def refuse(self, key: str, value: Any, expected: str) -> NoReturn:
        """Raise the `UserError` that an option's value calls for."""
        stated.refuse(f"model.{self.key}", key, value, expected)
