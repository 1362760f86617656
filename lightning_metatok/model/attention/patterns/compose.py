"""Rules made of rules: both, one of two, and another one for extra tokens."""

from typing import ClassVar

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns.base import EXAMPLE, Pattern


class _Pair(Pattern):
    sign: ClassVar[str]

    def __init__(self, one: Pattern, other: Pattern) -> None:
        self.one, self.other = one, other
        self.example = next((rule.example for rule in (one, other) if rule.example is not EXAMPLE), EXAMPLE)

    def __repr__(self) -> str:
        parts = (f"({rule!r})" if isinstance(rule, _Pair) else repr(rule) for rule in (self.one, self.other))
        return f" {self.sign} ".join(parts)


class And(_Pair):
    """Keys that both rules let a query see."""

    sign = "&"

    def __init__(self, one: Pattern, other: Pattern) -> None:
        super().__init__(one, other)
        self.causal = one.causal or other.causal

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        return self.one.allowed(q, k) & self.other.allowed(q, k)

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        return self.one.needed(facts, rows) & self.other.needed(facts, rows)

    def lasts(self, facts: Facts) -> Tensor:
        return self.one.lasts(facts) & self.other.lasts(facts)


class Or(_Pair):
    """Keys that one of the rules lets a query see."""

    sign = "|"

    def __init__(self, one: Pattern, other: Pattern) -> None:
        super().__init__(one, other)
        self.causal = one.causal and other.causal

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        return self.one.allowed(q, k) | self.other.allowed(q, k)

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        return self.one.needed(facts, rows) | self.other.needed(facts, rows)

    def lasts(self, facts: Facts) -> Tensor:
        return self.one.lasts(facts) | self.other.lasts(facts)


class ByRow(Pattern):
    """A rule for ordinary tokens and another one for extra tokens; here `causal`, and `causal & extra`.

      a a * a a *
    a # . . . . .
    a # # . . . .
    * . . # . . .
    a # # # # . .
    a # # # # # .
    * . . # . . #
    """

    def __init__(self, text: Pattern, extra: Pattern) -> None:
        self.text, self.extra = text, extra
        self.causal = text.causal and extra.causal

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        return torch.where(q.extra, self.extra.allowed(q, k), self.text.allowed(q, k))

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        extra_BQ = facts.is_extra_BK[:, rows]
        of_text_BK = self.text.needed(facts, rows) & ~extra_BQ.all(dim=1, keepdim=True)
        return of_text_BK | (self.extra.needed(facts, rows) & extra_BQ.any(dim=1, keepdim=True))

    def lasts(self, facts: Facts) -> Tensor:
        return self.text.lasts(facts) | self.extra.lasts(facts)

    def __repr__(self) -> str:
        return f"ByRow(text={self.text!r}, extra={self.extra!r})"
