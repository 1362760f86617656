"""The options of a positional encoding: `lightning_metatok.options` says how they are stated and checked.

A family takes `Sizes` before them:

    def __init__(self, sizes: Sizes, *, base: Annotated[float, above(1)] = 10000.0) -> None: ...
"""

from typing import Any, NoReturn

from lightning_metatok.errors import UserError
from lightning_metatok.options import Rule, above, at_least


def refuse(key: str, value: Any, expected: str) -> NoReturn:
    """Raise the `UserError` that an option's value calls for."""
    raise UserError(f"model.position_options.{key}={value!r}: expected {expected}")


__all__ = ["Rule", "above", "at_least", "refuse"]
