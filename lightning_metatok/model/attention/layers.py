"""The two attention layers: causal over all tokens, and over the gathered meta rows.

Both have their own q, k, v and output weights (that is what makes GPT-2's 124M parameters into 152M; arXiv
2509.16278, section 4) and differ in what they are given: all rows [B, T, D], or the R meta rows [R, D] that
the block gathers before the layer norm. What is the same for every layer of a forward pass stands in an
`AttentionPlan`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from lightning_metatok.model.attention import backends
from lightning_metatok.model.attention.meta import MetaBlocks, attend_blocks
from lightning_metatok.model.attention.reference import Score
from lightning_metatok.model.cache import KeysValues, MetaSlots
from lightning_metatok.model.config import TransformerConfig
from lightning_metatok.model.positions import PositionEncoding


@dataclass(frozen=True)
class AttentionPlan:
    """What one attention may see, computed once a forward pass and shared by all layers."""

    positions: PositionEncoding
    rotation: Any
    """What `positions.prepare` made for the rows at hand."""

    score: Callable[..., Tensor] | None = None
    """Transform of the scores, for encodings that have one: `positions.score` with the positions of the keys."""

    mask: Tensor | None = None
    """All rows: as in `reference.attend`, None for plain causal."""

    blocks: MetaBlocks | None = None
    """Meta rows: which they are. None where attention is over all rows."""

    slots: MetaSlots | None = None
    """Meta rows with a cache: their places in it."""

    def score_of(self, layer: int) -> Score | None:
        """The transform of the scores of one layer."""
        score = self.score
        if score is None:
            return None
        parameters = tuple(self.positions.parameters())
        return Score(lambda scores, rows: score(scores, layer=layer, rows=rows), parameters)


class Projections(nn.Module):
    """The weights of one attention: q, k, v as one matrix, and the output."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=config.bias)
        self.out = nn.Linear(config.d_model, config.d_model, bias=config.bias)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v, [..., N, H] each, of rows [..., D]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).unbind(-3)
        return q, k, v


class CausalSelfAttention(nn.Module):
    """Attention of every token to earlier tokens, itself included.

    With `shared` it has no weights of its own and is given another attention's at each call. `layer` says which of the
    positional encoding's parameters are this attention's.
    """

    def __init__(self, config: TransformerConfig, *, layer: int = 0, shared: bool = False) -> None:
        super().__init__()
        self.layer = layer
        self.projections = None if shared else Projections(config)
        self.backend = config.attention_backend
        self.dropout = config.dropout

    def forward(
        self,
        x_BTD: Tensor,
        plan: AttentionPlan,
        memory: KeysValues | None = None,
        projections: Projections | None = None,
    ) -> Tensor:
        """The residual's update, [B, T, D]; `memory` holds earlier keys and values and takes up the new."""
        weights = projections or self.projections
        assert weights is not None, "shared attention needs the projections it shares"
        q, k, v = (x.transpose(1, 2) for x in weights.split(x_BTD))
        q, k = plan.positions.apply_to(q, k, plan.rotation)
        if memory is not None:
            k, v = memory.append(k, v)
        backend = backends.choose(
            self.backend,
            device=q.device,
            dtype=q.dtype,
            dense_mask=plan.mask is not None,
            score=plan.score is not None,
        )
        dropout = self.dropout if self.training else 0.0
        out_BNTH = backend.attend(q, k, v, mask=plan.mask, score=plan.score_of(self.layer), dropout=dropout)
        update_BTD: Tensor = weights.out(out_BNTH.transpose(1, 2).flatten(-2))
        return update_BTD


class MetaAttention(CausalSelfAttention):
    """Attention of meta-tokens to earlier meta-tokens of their document; given the meta rows alone."""

    def forward(
        self,
        x_RD: Tensor,
        plan: AttentionPlan,
        memory: KeysValues | None = None,
        projections: Projections | None = None,
    ) -> Tensor:
        """The residual's update at the meta rows, [R, D]."""
        weights = projections or self.projections
        assert weights is not None, "shared attention needs the projections it shares"
        assert plan.blocks is not None, "the plan does not say which rows are meta-tokens"
        q, k, v = weights.split(x_RD)
        q, k = plan.positions.apply_to(q.transpose(0, 1)[None], k.transpose(0, 1)[None], plan.rotation)
        q, k = q[0].transpose(0, 1), k[0].transpose(0, 1)
        if memory is not None:
            assert plan.slots is not None, "a cache needs the places of the meta rows"
            out_RNH = self._attend_cached(q, k, v, plan, memory, plan.slots)
        else:
            dropout = self.dropout if self.training else 0.0
            score = plan.score_of(self.layer)
            out_RNH = attend_blocks(q, k, v, plan.blocks, score=score, dropout=dropout, backend=self.backend)
        update_RD: Tensor = weights.out(out_RNH.flatten(-2))
        return update_RD

    def _attend_cached(
        self,
        q_RNH: Tensor,
        k_RNH: Tensor,
        v_RNH: Tensor,
        plan: AttentionPlan,
        memory: KeysValues,
        slots: MetaSlots,
    ) -> Tensor:
        k, v = memory.place(k_RNH, v_RNH, slots)
        # Queries stand at their own slots of a square, with nothing at the slots of earlier ones: a causal
        # square needs no mask, and the waste is small because meta-tokens are few.
        q = slots.scatter(q_RNH, None)
        score = plan.score_of(self.layer)
        backend = backends.choose(self.backend, device=q.device, dtype=q.dtype, score=score is not None)
        return slots.gather(backend.attend(q, k, v, score=score))
