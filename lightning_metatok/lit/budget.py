"""What a run may cost: so many source tokens, or so many FLOPs. Its steps and the end of its schedule follow.

    steps = floor(budget / cost of an optimiser step, over all micro-batches and ranks)

Arms differ in what a step costs. Given the same budget each ends at its own step, and each has followed its schedule
to the end there; read in the middle of a longer run, one would be compared at another learning rate.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_metatok.errors import UserError, nearest

KEY = "trainer.budget"


@dataclass(frozen=True)
class Cost:
    """What an optimiser step costs on all ranks: source tokens, and training FLOPs."""

    source_tokens: float
    flops: float


@dataclass(frozen=True)
class Budget:
    """One of two; neither: `trainer.max_steps` says how long to train."""

    source_tokens: float | None = None
    """Tokens of text, meta-tokens not counted, that a run may read; sets max_steps and the end of the schedule."""
    flops: float | None = None
    """FLOPs, forward and backward, that a run may take; sets max_steps and the end of the schedule."""

    def __post_init__(self) -> None:
        """Raise UserError for a budget that is none."""
        given = self.given
        if len(given) > 1:
            shown = ", ".join(f"{KEY}.{name}={value:g}" for name, value in given.items())
            raise UserError(f"{shown}: expected one of them alone")
        for name, value in given.items():
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"{KEY}.{name}={value:g}: expected a positive number")

    @property
    def given(self) -> dict[str, float]:
        """What is given, by its name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def steps(self, cost: Cost) -> int:
        """Optimiser steps that it pays for.

        Raises:
            UserError: less than one.
        """
        ((name, value),) = self.given.items()
        each = float(getattr(cost, name))
        if value < each:
            raise UserError(f"{KEY}.{name}={value:g}: expected {each:g} or more, what one optimiser step costs")
        return math.floor(value / each)


def read_budget(given: Any) -> Budget:
    """Return the budget that a trainer was given: one, a mapping, or None.

    Raises:
        UserError: something else, or an unknown key.
    """
    if isinstance(given, Budget):
        return given
    content = {} if given is None else given if isinstance(given, Mapping) else getattr(given, "__dict__", None)
    if content is None:
        raise UserError(f"{KEY}={given}: expected {{source_tokens: N}} or {{flops: N}}")
    known = list(Budget.__dataclass_fields__)
    for key, value in content.items():
        if key not in known:
            raise UserError(f"{KEY}.{key}: expected one of {', '.join(known)}{nearest(str(key), known)}")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UserError(f"{KEY}.{key}={value!r}: expected a positive number")
    return Budget(**content)
