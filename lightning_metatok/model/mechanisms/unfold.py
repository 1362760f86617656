"""Chunks are opened: of those that a token sees through their extra tokens alone, the best ones' text is read, too.

    own chunk and extra tokens by the pattern     * * a a *         scores of the extra tokens choose, head by head,
    and the text of the `top` best chunks         a a * * a a *     and what is chosen joins the one softmax

Selective unfolding of SSA. No weights are added and a choice has no gradient, so that `top` can be swept on one trained
model: it may be 0 while training, and then there is nothing but the pattern. With as many as there are chunks a token
reads all that its extra tokens stand for; with the pattern `causal` it does so anyway. Nothing can be forgotten in
generation: any chunk may be opened later.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import Causal, Pattern
from lightning_metatok.model.attention.plan import Forward, Transform
from lightning_metatok.model.attention.sight import Sight
from lightning_metatok.model.mechanisms.base import Mechanism, refuse
from lightning_metatok.model.positions.base import Rows
from lightning_metatok.model.positions.score_bias import visible
from lightning_metatok.options import at_least

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig


class Unfold(Mechanism):
    """The text of the `top` chunks whose extra tokens a token scores highest is read, too."""

    transforms_scores: ClassVar[bool] = True
    needs_all_keys = True
    cannot: ClassVar[Mapping[str, str]] = {"ahead": "it opens earlier chunks"}
    free_after_training: ClassVar[frozenset[str]] = frozenset({"top"})

    def __init__(self, *, top: Annotated[int, at_least(0)] = 1) -> None:
        self.top = top
        self.needs_all_keys = top > 0

    @property
    def idle(self) -> bool:
        return self.top == 0

    def says(self) -> list[str]:
        return [f"top {self.top}"]

    def check(self, config: "TransformerConfig") -> None:
        if self.top > config.max_positions:
            raise refuse(
                "top", self.top, f"no more chunks than model.max_positions={config.max_positions} has room for"
            )

    def rules(self, layer: int, pattern: Pattern) -> tuple[Pattern, ...]:
        return (Causal(),) if self.top else ()

    def opened(self, forward: Forward) -> Sight | None:
        return forward.sight(Causal()) if self.top else forward.seen

    def transform(self, forward: Forward) -> Transform | None:
        facts = forward.facts
        if not self.top or facts.extra_BK is None or not forward.pattern.needs_mask:
            return None
        rule = forward.within_documents(forward.within_memory(forward.pattern))
        n_chunks = int(facts.segment_BK.max()) + 1

        def unfolded(scores_BNQK: Tensor, *, layer: int, rows: Rows) -> Tensor:
            queries = slice(rows.first, rows.first + scores_BNQK.shape[-2])
            seen_B1QK = rule.mask(facts, queries)[..., : scores_BNQK.shape[-1]].unsqueeze(1)
            open_BNQK = opens(scores_BNQK, seen_B1QK, facts, n_chunks, rows, self.top) & visible(scores_BNQK, rows)
            return scores_BNQK.masked_fill(~(seen_B1QK | open_BNQK), -torch.inf)

        return unfolded


def opens(scores_BNQK: Tensor, seen_B1QK: Tensor, facts: Facts, n_chunks: int, rows: Rows, top: int) -> Tensor:
    """Return whether a key is in a chunk that its query opens, bool [B, N, Q, K]; `facts` are those of all keys.

    A chunk ends with a run of extra tokens, and who sees one of them from outside may open it; the largest score of
    these is its own.
    """
    Q, K = scores_BNQK.shape[-2:]
    chunk_B11K = facts.segment_BK[:, None, None, :K]
    own_B1QK = facts.chunk_BK[:, None, rows.first : rows.first + Q, None] == facts.chunk_BK[:, None, None, :K]
    says_B1QK = seen_B1QK & facts.is_extra_BK[:, None, None, :K] & ~own_B1QK
    at_BNQK = chunk_B11K.expand_as(scores_BNQK)
    nothing_BNQC = scores_BNQK.new_full((*scores_BNQK.shape[:-1], n_chunks), -torch.inf)
    best_BNQC = nothing_BNQC.scatter_reduce(
        -1, at_BNQK, scores_BNQK.detach().masked_fill(~says_B1QK, -torch.inf), "amax"
    )
    chosen_BNQt = best_BNQC.topk(min(top, n_chunks), dim=-1).indices
    chosen_BNQC = torch.zeros_like(best_BNQC, dtype=torch.bool).scatter(-1, chosen_BNQt, True)
    return (chosen_BNQC & ~best_BNQC.isneginf()).gather(-1, at_BNQK)
