"""The one interface of all patterns: WHAT may be seen, said three ways.

    allowed(facts, rows)   bool [B, Q, K]: the oracle, dense             needed(facts, rows)   bool [B, K]: which keys
    print(rule)            the same as a picture of a few tokens                                any of the rows may need

A rule is composed of others: `a & b` lets a query see what both let it see, `a | b` what one of them does, and
`ByRow(text=a, extra=b)` has a rule for ordinary tokens and another one for extra tokens.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts

EXAMPLE = Facts.of(6, torch.tensor([[False, False, True, False, False, True]]))
BLOCK = 1024
"""Rows that `mean_keys` counts at a time."""


class Pattern:
    """A rule; subclasses give `allowed` and `needed`."""

    causal: bool = False
    """Whether it never lets a query see what stands behind it."""

    needs_mask: bool = True
    """False where it is what backends do without a mask: all keys up to the query's own place."""

    cannot: ClassVar[Mapping[str, str]] = {}
    """What it cannot do (`config.FEATURES`), and why, as a clause."""

    example: Facts = EXAMPLE
    """What `print` draws it on."""

    def allowed(self, facts: Facts, rows: slice) -> Tensor:
        """Return which keys each query may see.

        Args:
            facts: of all keys. rows: which of them are the queries, as a slice with both ends.

        Returns:
            bool, which broadcasts to [B, Q, K].
        """
        raise NotImplementedError

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        """Return the keys, bool, which broadcasts to [B, K], that `allowed` may say True of for any of the queries.

        Never of size Q x K: it says where a backend need not look. Too many keys are right, too few are not.
        """
        raise NotImplementedError

    def mask(self, facts: Facts, rows: slice | None = None) -> Tensor:
        """Return `allowed` in full, [B or 1, Q, K]; `rows` None: all tokens are queries."""
        rows = slice(0, facts.n) if rows is None else rows
        allowed = self.allowed(facts, rows)
        return allowed.expand(*allowed.shape[:-2], rows.stop - rows.start, facts.n)

    def ranges(self, facts: Facts, rows: slice) -> list[tuple[int, int]]:
        """Return the keys that some sample's queries need as [first, behind the last), ascending and apart."""
        needed_K = self.needed(facts, rows).any(dim=0).expand(facts.n).int()
        change = torch.nn.functional.pad(needed_K, (1, 1)).diff()
        first, behind = ((change == sign).nonzero().flatten().tolist() for sign in (1, -1))
        return list(zip(first, behind, strict=True))

    def at(self, layer: int, n_layers: int) -> "Pattern":
        """Return the rule of one layer, for a pattern that differs between them; the same object where it does not."""
        return self

    def mean_keys(self, n: int, extra_share: float) -> float:
        """Return how many keys a query sees on average in a document of `n` tokens, for `flops_per_token`.

        A rule that knows better than to count overrides it: here extra tokens stand at even distances.
        """
        return _counted(self, n, round(extra_share, 3))

    def __and__(self, other: "Pattern") -> "Pattern":
        return And(self, other)

    def __or__(self, other: "Pattern") -> "Pattern":
        return Or(self, other)

    def __repr__(self) -> str:
        return type(self).__name__

    def __str__(self) -> str:
        """Rows are queries, columns keys, # where a query may look; letters say the document, * is an extra token."""
        facts = self.example
        documents = facts.document_BK if facts.document_BK is not None else torch.zeros_like(facts.place_BK)
        names = ["*" if x else chr(97 + d) for x, d in zip(facts.is_extra_BK[0], documents[0].tolist(), strict=True)]
        rows = (" ".join("#" if seen else "." for seen in row) for row in self.mask(facts)[0].tolist())
        lines = [f"  {' '.join(names)}", *(f"{name} {row}" for name, row in zip(names, rows, strict=True))]
        return "\n".join(lines)


@lru_cache(maxsize=256)
def _counted(rule: Pattern, n: int, extra_share: float) -> float:
    place = torch.arange(n)
    extra_1K = ((place + 1) * extra_share).floor().diff(prepend=torch.zeros(1)) > 0
    facts = Facts.of(n, extra_1K[None])
    rows = (slice(first, min(n, first + BLOCK)) for first in range(0, n, BLOCK))
    return sum(int(rule.mask(facts, block).sum()) for block in rows) / n


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

    def allowed(self, facts: Facts, rows: slice) -> Tensor:
        return self.one.allowed(facts, rows) & self.other.allowed(facts, rows)

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        return self.one.needed(facts, rows) & self.other.needed(facts, rows)


class Or(_Pair):
    """Keys that one of the rules lets a query see."""

    sign = "|"

    def __init__(self, one: Pattern, other: Pattern) -> None:
        super().__init__(one, other)
        self.causal = one.causal and other.causal

    def allowed(self, facts: Facts, rows: slice) -> Tensor:
        return self.one.allowed(facts, rows) | self.other.allowed(facts, rows)

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        return self.one.needed(facts, rows) | self.other.needed(facts, rows)


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

    def allowed(self, facts: Facts, rows: slice) -> Tensor:
        extra_BQ1 = facts.is_extra_BK[:, rows].unsqueeze(-1)
        return torch.where(extra_BQ1, self.extra.allowed(facts, rows), self.text.allowed(facts, rows))

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        extra_BQ = facts.is_extra_BK[:, rows]
        of_text_BK = self.text.needed(facts, rows) & ~extra_BQ.all(dim=1, keepdim=True)
        return of_text_BK | (self.extra.needed(facts, rows) & extra_BQ.any(dim=1, keepdim=True))

    def __repr__(self) -> str:
        return f"ByRow(text={self.text!r}, extra={self.extra!r})"
