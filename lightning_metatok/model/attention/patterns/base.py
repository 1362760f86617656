"""The one interface of all patterns: WHAT may be seen, said four ways.

    allowed(q, k)          bool, element by element: the rule          needed(facts, rows)   bool [B, K]: which keys
    mask(facts, rows)      the same as a table [B, Q, K]: the oracle                         any of the rows may need
    print(rule)            the same as a picture of a few tokens       lasts(facts)          bool [B, K]: which keys
                                                                                             any LATER row may need

A rule is composed of others: `a & b` lets a query see what both let it see, `a | b` what one of them does, and
`ByRow(text=a, extra=b)` has a rule for ordinary tokens and another one for extra tokens.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens, evenly

EXAMPLE = Facts.of(6, torch.tensor([[False, False, True, False, False, True]]))
BLOCK = 1024
"""Rows that `mean_keys` counts at a time."""


class Pattern:
    """A rule; subclasses give `allowed` and `needed`."""

    causal: bool = False
    """Whether it never lets a query see what stands behind it."""

    prompts: bool = False
    """Whether all it lets a query see of what stands behind it is the rest of its prompt (`facts`), so that a model can
    write behind prompts with it, though it is not causal."""

    needs_mask: bool = True
    """False where it is what backends do without a mask: all keys up to the query's own place."""

    cannot: ClassVar[Mapping[str, str]] = {}
    """What it cannot do (`config.FEATURES`), and why, as a clause."""

    example: Facts = EXAMPLE
    """What `print` draws it on."""

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        """Return whether each query may see each key, element by element.

        Args:
            q, k: facts of queries and of keys, which broadcast to each other: [B, Q, 1] and [B, 1, K], or any shapes.

        Returns:
            bool, which broadcasts to the pairs.
        """
        raise NotImplementedError

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        """Return the keys, bool, which broadcasts to [B, K], that `allowed` may say True of for any of the queries.

        Never of size Q x K: it says where a backend need not look. Too many keys are right, too few are not.
        """
        raise NotImplementedError

    def lasts(self, facts: Facts) -> Tensor:
        """Return the keys, bool, which broadcasts to [B, K], that `allowed` may say True of for any token behind all of
        these, in the document of the last one. A memory may forget the others.

        Too many keys are right, too few are not; a rule that forgets nothing need not say so.
        """
        return torch.ones_like(facts.place_BK, dtype=torch.bool)

    def mask(self, facts: Facts, rows: slice | None = None) -> Tensor:
        """Return `allowed` in full, [B or 1, Q, K]; `rows` None: all tokens are queries."""
        rows = slice(0, facts.n) if rows is None else rows
        allowed = self.allowed(facts.queries(rows), facts.keys())
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
        from lightning_metatok.model.attention.patterns import compose

        return compose.And(self, other)

    def __or__(self, other: "Pattern") -> "Pattern":
        from lightning_metatok.model.attention.patterns import compose

        return compose.Or(self, other)

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
    facts = Facts.of(n, evenly(n, extra_share)[None])
    rows = (slice(first, min(n, first + BLOCK)) for first in range(0, n, BLOCK))
    return sum(int(rule.mask(facts, block).sum()) for block in rows) / n
