"""The two attention layers: of all tokens, and of the extra tokens that were gathered.

Both have their own q, k, v and output weights, or another attention's, and differ in what they are given: all rows
[B, T, D], or the R extra rows [R, D] that the block gathers before the norm. What is the same for every layer of a
forward pass stands in an `AttentionPlan`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_metatok.model.attention import backends
from lightning_metatok.model.attention.backends import reference
from lightning_metatok.model.attention.backends.reference import Score
from lightning_metatok.model.attention.meta import MetaBlocks, attend_blocks
from lightning_metatok.model.attention.sight import Sight
from lightning_metatok.model.cache import ExtraSlots, KeysValues
from lightning_metatok.model.positions import PositionEncoding

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig


@dataclass(frozen=True)
class Plan:
    """What one branch works on, computed once a forward pass and shared by all layers."""

    blocks: MetaBlocks | None = field(default=None, kw_only=True)
    """Extra rows: which they are. None where the branch works on all rows."""


@dataclass(frozen=True)
class AttentionPlan(Plan):
    """What one attention may see."""

    positions: PositionEncoding
    rotation: Any
    """What `positions.prepare` made for the rows at hand."""

    score: Callable[..., Tensor] | None = None
    """Transform of the scores, for encodings and mechanisms that have one: takes them, `layer` and `rows`."""

    sight: Sight | None = None
    """All rows: what they see; None: all keys up to their own place."""

    table: Tensor | None = None
    """A mask in place of the sight, as in `reference.attend`."""

    slots: ExtraSlots | None = None
    """Extra rows with a cache: their places in it."""

    extra_BT: Tensor | None = None
    """All rows: which are extra tokens, for an attention that treats them otherwise; None: none are."""

    extra_rows_R: Tensor | None = None
    """The same as flat indices into B * T, for a mechanism whose `parts_of_attention` work on these rows."""

    @property
    def mask(self) -> Tensor | None:
        """What is seen as a table, as in `reference.attend`; None for plain causal."""
        return self.sight.mask if self.table is None and self.sight is not None else self.table

    def score_of(self, layer: int, sink_N: Tensor | None = None) -> Score | None:
        """What is done to the scores of one layer, whose softmax has a sink or none; None: nothing."""
        score = self.score
        if score is None:
            return None if sink_N is None else Score(None, (sink_N,), sink_N)
        parameters = (*self.positions.parameters(), *(() if sink_N is None else (sink_N,)))
        return Score(lambda scores, rows: score(scores, layer=layer, rows=rows), parameters, sink_N)


class Projections(nn.Module):
    """The weights of one attention: q, k, v as one matrix, the output, and what its softmax and its heads end with."""

    sink_N: Tensor | None

    def __init__(self, config: "TransformerConfig") -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = config.n_heads, config.kv_heads
        n_rows = (config.n_heads + 2 * config.kv_heads) * config.head_dim
        bias = config.bias if config.qkv_bias is None else config.qkv_bias
        self.qkv = nn.Linear(config.d_model, n_rows, bias=bias)
        self.out = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        sink_N = None if config.denominator == "sum" else torch.zeros(config.n_heads)
        if config.denominator == "sink" and sink_N is not None:
            self.sink_N = nn.Parameter(sink_N)
        else:
            self.register_buffer("sink_N", sink_N, persistent=False)
        self.gate = nn.Linear(config.d_model, config.gate_width, bias=False) if config.gate_width else None

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v, [..., N, H] each, of rows [..., D]; heads of queries that share a k and v have a copy each."""
        return self.heads(self.qkv(x))

    def heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of rows that are projected already."""
        if self.n_kv_heads != self.n_heads:
            of_heads = qkv.unflatten(-1, (self.n_heads + 2 * self.n_kv_heads, -1))
            q, *kv = of_heads.split((self.n_heads, self.n_kv_heads, self.n_kv_heads), dim=-2)
            k, v = (part.repeat_interleave(self.n_heads // self.n_kv_heads, dim=-2) for part in kv)
            return q, k, v
        q, k, v = qkv.unflatten(-1, (3, self.n_heads, -1)).unbind(-3)
        return q, k, v

    def sink(self) -> Tensor | None:
        """The score of nothing, [N]; None: the softmax has none."""
        return self.sink_N

    def gates(self, x: Tensor) -> Tensor | None:
        """What heads are multiplied with at rows [..., D]: [..., N] or [..., D]; None: they are not."""
        return None if self.gate is None else self.gate(x).sigmoid()

    def gated(self, heads: Tensor, x: Tensor) -> Tensor:
        """Heads [..., N, H] of rows x [..., D] side by side, times their gates."""
        gates = self.gates(x)
        if gates is None:
            return heads.flatten(-2)
        each = gates.unsqueeze(-1) if gates.shape[-1] == heads.shape[-2] else gates.unflatten(-1, heads.shape[-2:])
        return (heads * each).flatten(-2)

    def finish(self, x: Tensor) -> Tensor:
        """The update of rows whose heads stand side by side, [..., D]."""
        update: Tensor = self.out(x)
        return update


class Attention(nn.Module):
    """Attention of every token to what its plan lets it see.

    `layer` says which of the positional encoding's parameters are this attention's. With a `lender` it has no weights
    of its own and uses that attention's; `projections` are what it has in place of the usual ones.
    """

    def __init__(
        self,
        config: "TransformerConfig",
        *,
        layer: int = 0,
        lender: "Attention | None" = None,
        projections: Projections | None = None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.projections = (projections or Projections(config)) if lender is None else None
        # In a tuple, where PyTorch does not take it for a part of this module.
        self._lender = () if lender is None else (lender,)
        self.backend = config.attention_backend
        self.dropout = config.dropout

    @property
    def weights(self) -> Projections:
        """The weights it uses."""
        weights = self._lender[0].projections if self._lender else self.projections
        assert weights is not None, "an attention borrows from one that has weights"
        return weights

    def forward(self, x_BTD: Tensor, plan: AttentionPlan, memory: KeysValues | None = None) -> Tensor:
        """The residual's update, [B, T, D]; `memory` holds earlier keys and values and takes up the new."""
        q, k, v = self.project(x_BTD, plan)
        (q, k), v = self.turned(q, k, plan), v.transpose(1, 2)
        if memory is not None:
            k, v = memory.append(k, v)
        dropout = self.dropout if self.training else 0.0
        score = plan.score_of(self.layer, self.weights.sink())
        backend = backends.choose(
            self.backend,
            device=q.device,
            dtype=q.dtype,
            dense_mask=plan.sight is not None or plan.table is not None,
            score=score is not None,
            sight=plan.sight if plan.table is None and dropout == 0 else None,
        )
        by_sight = backend.TAKES_SIGHTS and plan.table is None
        seen: dict[str, Any] = {"sight": plan.sight} if by_sight else {"mask": plan.mask}  # asking makes the table
        out_BNTH = backend.attend(q, k, v, **seen, score=score, dropout=dropout)
        return self.weights.finish(self.weights.gated(out_BNTH.transpose(1, 2), x_BTD))

    def project(self, x: Tensor, plan: AttentionPlan) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of its rows, [..., N, H] each."""
        return self.weights.split(x)

    def look(self, x: Tensor, plan: AttentionPlan, *, scores: bool = True) -> tuple[Tensor, Tensor | None]:
        """What it would see, for recordings: value vectors of its rows, heads side by side, and its scores.

        Args:
            x: as for `forward`. scores: whether these are wanted, too.

        Returns:
            values; scores as the softmax gets them, [B, N, T, T], or of extra rows [blocks, N, longest, longest].
        """
        q, k, v = self.project(x, plan)
        if not scores:
            return v.flatten(-2), None
        q, k = self.turned(q, k, plan)
        score = plan.score_of(self.layer) if q.numel() else None  # of no rows there is nothing to transform
        return v.flatten(-2), reference.masked_scores(q, k, mask=plan.mask, score=score)

    def turned(self, q: Tensor, k: Tensor, plan: AttentionPlan) -> tuple[Tensor, Tensor]:
        """q and k [B, T, N, H] of its rows as scores are made of them, positions in them: [B, N, T, H] each."""
        return plan.positions.apply_to(q.transpose(1, 2), k.transpose(1, 2), plan.rotation)


class GatheredAttention(Attention):
    """Attention of extra tokens to earlier extra tokens of their document; given the extra rows alone."""

    def forward(self, x_RD: Tensor, plan: AttentionPlan, memory: KeysValues | None = None) -> Tensor:
        """The residual's update at the extra rows, [R, D]."""
        assert plan.blocks is not None, "the plan does not say which rows are extra tokens"
        weights = self.weights
        q, k, v = weights.split(x_RD)
        q, k = plan.positions.apply_to(q.transpose(0, 1)[None], k.transpose(0, 1)[None], plan.rotation)
        q, k = q[0].transpose(0, 1), k[0].transpose(0, 1)
        if memory is not None:
            assert plan.slots is not None, "a cache needs the places of the extra rows"
            out_RNH = self._attend_cached(q, k, v, plan, memory, plan.slots)
        else:
            dropout = self.dropout if self.training else 0.0
            score = plan.score_of(self.layer, weights.sink())
            out_RNH = attend_blocks(q, k, v, plan.blocks, score=score, dropout=dropout, backend=self.backend)
        return weights.finish(weights.gated(out_RNH, x_RD))

    def _attend_cached(
        self,
        q_RNH: Tensor,
        k_RNH: Tensor,
        v_RNH: Tensor,
        plan: AttentionPlan,
        memory: KeysValues,
        slots: ExtraSlots,
    ) -> Tensor:
        k, v = memory.place(k_RNH, v_RNH, slots)
        # Queries stand at their own slots of a square, with nothing at the slots of earlier ones: a causal
        # square needs no mask, and the waste is small because extra tokens are few.
        q = slots.scatter(q_RNH)
        score = plan.score_of(self.layer, self.weights.sink())
        masked, scored = plan.sight is not None, score is not None
        backend = backends.choose(self.backend, device=q.device, dtype=q.dtype, dense_mask=masked, score=scored)
        seen: dict[str, Any] = {"sight": plan.sight} if backend.TAKES_SIGHTS else {"mask": plan.mask}
        return slots.gather(backend.attend(q, k, v, **seen, score=score))

    def turned(self, q: Tensor, k: Tensor, plan: AttentionPlan) -> tuple[Tensor, Tensor]:
        assert plan.blocks is not None, "the plan does not say which rows are extra tokens"
        q, k = plan.positions.apply_to(q.transpose(0, 1)[None], k.transpose(0, 1)[None], plan.rotation)
        q, k = (plan.blocks.pad(x[0].transpose(0, 1)).transpose(1, 2) for x in (q, k))
        return q, k
