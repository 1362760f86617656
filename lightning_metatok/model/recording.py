"""Record what a forward pass does inside: the residual stream around every branch, and both attentions.

    before ──┬── self_update ──+── after_self ──┬── meta_update ──+── after_meta ──┬── mlp_update ──+── after
             └─ self-attention ┘                └─ meta-attention ┘                └───── MLP ──────┘

Hooks that are there only while `recorded` is open: the code of the model knows nothing of them, a model that is not
recorded pays nothing, and what it computes is the same, bit for bit. Attention probabilities are not taken from the
backend at work, which may never have them, but computed beside it by the reference backend.

What interventions change (`lightning_metatok.model.interventions`) is recorded as changed where they were entered
before `recorded`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from lightning_metatok.model.attention import reference
from lightning_metatok.model.attention.layers import AttentionPlan, CausalSelfAttention, Projections
from lightning_metatok.model.attention.meta import MetaBlocks
from lightning_metatok.model.block import Block
from lightning_metatok.model.transformer import MetaTransformer


@dataclass(frozen=True)
class LayerRecord:
    """One layer of one forward pass.

    Attributes:
        before_BTD: residual stream that enters. after_self_BTD, after_meta_BTD, after_BTD: behind each branch;
            `after_meta_BTD` equals `after_self_BTD` where there is no second attention.
        self_update_BTD, meta_update_BTD, mlp_update_BTD: what each branch adds (before the norm, with norm="post").
            `meta_update_BTD` is 0 at rows that the second attention leaves alone, None where the layer has none or
            the batch no meta-tokens.
        self_values_BTD, meta_values_BTD: value vectors, heads side by side; 0 at rows without one.
        self_scores_BNTT, meta_scores_BNTT: scores as the softmax gets them, positions and mask in them, -inf where a
            query may not look; rows of other tokens are -inf throughout. None unless `attention` was asked for.
    """

    before_BTD: Tensor
    self_update_BTD: Tensor
    after_self_BTD: Tensor
    meta_update_BTD: Tensor | None
    after_meta_BTD: Tensor
    mlp_update_BTD: Tensor
    after_BTD: Tensor
    self_values_BTD: Tensor
    meta_values_BTD: Tensor | None
    self_scores_BNTT: Tensor | None
    meta_scores_BNTT: Tensor | None

    @property
    def self_probs_BNTT(self) -> Tensor:
        """Attention probabilities of self-attention."""
        assert self.self_scores_BNTT is not None, "recorded without attention"
        return reference.weights(self.self_scores_BNTT)

    @property
    def meta_probs_BNTT(self) -> Tensor | None:
        """Attention probabilities of the second attention, 0 at rows that it leaves alone; None as its scores."""
        return None if self.meta_scores_BNTT is None else reference.weights(self.meta_scores_BNTT)


@dataclass
class Recording:
    """The last forward pass: its layers in order, and the hidden states that `MetaTransformer.logits` takes."""

    layers: list[LayerRecord] = field(default_factory=list)
    hidden_BTD: Tensor | None = None


@contextmanager
def recorded(model: MetaTransformer, *, attention: bool = True) -> Iterator[Recording]:
    """Record each forward pass of `model` in here; the next one takes the place of the one before.

    Args:
        attention: record scores, too; they cost B N T T numbers a layer.
    """
    recording = Recording()
    handles: list[RemovableHandle] = []
    try:
        handles.append(model.register_forward_pre_hook(lambda *_: recording.layers.clear()))
        for block in model.blocks:
            handles += _LayerHooks(cast(Block, block), recording, attention).register()
        handles.append(model.norm.register_forward_hook(lambda _, __, out: setattr(recording, "hidden_BTD", out)))
        with torch.compiler.set_stance("force_eager"):  # compiled code would not call the hooks
            yield recording
    finally:
        for handle in handles:
            handle.remove()


class _LayerHooks:
    """Fills a LayerRecord each time that `block` runs; a block that all layers share runs several times."""

    def __init__(self, block: Block, recording: Recording, attention: bool) -> None:
        self.block, self.recording, self.attention = block, recording, attention
        self.found: dict[str, Tensor | None] = {}

    def register(self) -> list[RemovableHandle]:
        block = self.block
        handles = [
            block.register_forward_pre_hook(self._begin),
            block.attention.register_forward_pre_hook(self._before_self),
            block.attention.register_forward_hook(lambda _, __, out: self._keep(self_update_BTD=out)),
            block.mlp.register_forward_hook(lambda _, __, out: self._keep(mlp_update_BTD=out)),
            block.register_forward_hook(self._end),
        ]
        if block.pre_norm:
            handles.append(block.norm_mlp.register_forward_pre_hook(lambda _, args: self._keep(after_meta_BTD=args[0])))
        else:
            handles += [
                block.norm_attention.register_forward_hook(lambda _, __, out: self._keep(after_self_BTD=out)),
                block.mlp.register_forward_pre_hook(lambda _, args: self._keep(after_meta_BTD=args[0])),
            ]
        if block.meta_attention is not None:
            handles += [
                block.meta_attention.register_forward_pre_hook(self._before_meta),
                block.meta_attention.register_forward_hook(self._after_meta),
            ]
        return handles

    def _keep(self, **tensors: Tensor | None) -> None:
        self.found |= tensors

    def _begin(self, _: Any, args: tuple[Any, ...]) -> None:
        assert len(args) < 4 or args[3] is None, "a pass with a cache has no whole attention to record"
        nothing = dict.fromkeys(("meta_update_BTD", "meta_values_BTD", "meta_scores_BNTT", "self_scores_BNTT"))
        self.found = {"before_BTD": args[0], **nothing}

    def _before_self(self, layer: CausalSelfAttention, args: tuple[Any, ...]) -> None:
        values_BTD, scores_BNTT = self._look(layer, args)
        self._keep(self_values_BTD=values_BTD, self_scores_BNTT=scores_BNTT)

    def _before_meta(self, layer: CausalSelfAttention, args: tuple[Any, ...]) -> None:
        plan: AttentionPlan = args[1]
        values, scores = self._look(layer, args)
        if plan.blocks is None:
            self._keep(meta_values_BTD=values, meta_scores_BNTT=scores)
            return
        like_BTD = cast(Tensor, self.found["before_BTD"])
        scores = None if scores is None else dense_scores(scores, plan.blocks, *like_BTD.shape[:2])
        self._keep(meta_values_BTD=_scattered(values, plan.blocks, like_BTD), meta_scores_BNTT=scores)

    def _after_meta(self, _: Any, args: tuple[Any, ...], update: Tensor) -> None:
        plan: AttentionPlan = args[1]
        if plan.blocks is not None:
            update = _scattered(update, plan.blocks, cast(Tensor, self.found["before_BTD"]))
        self._keep(meta_update_BTD=update)

    def _end(self, _: Any, __: Any, after_BTD: Tensor) -> None:
        if self.block.pre_norm:  # the same sum as in the block, which adds meta-attention's update to it in place
            after_self_BTD = cast(Tensor, self.found["before_BTD"]) + cast(Tensor, self.found["self_update_BTD"])
            self._keep(after_self_BTD=after_self_BTD)
        self.recording.layers.append(LayerRecord(**cast(dict[str, Any], self.found), after_BTD=after_BTD))

    def _look(self, layer: CausalSelfAttention, args: tuple[Any, ...]) -> tuple[Tensor, Tensor | None]:
        """Value vectors of the rows that `layer` gets, and its scores: dense, or padded a block of meta rows."""
        rows, plan, shared = args[0], cast(AttentionPlan, args[1]), args[3] if len(args) > 3 else None
        weights = cast(Projections, shared or layer.projections)
        q, k, v = weights.split(rows)
        values = v.flatten(-2)
        if not self.attention:
            return values, None
        if plan.blocks is None:
            q, k = plan.positions.apply_to(q.transpose(1, 2), k.transpose(1, 2), plan.rotation)
        else:
            q, k = plan.positions.apply_to(q.transpose(0, 1)[None], k.transpose(0, 1)[None], plan.rotation)
            q, k = (plan.blocks.pad(x[0].transpose(0, 1)).transpose(1, 2) for x in (q, k))
        return values, reference.masked_scores(q, k, mask=plan.mask, score=plan.score_of(layer.layer))


def _scattered(x_RD: Tensor, blocks: MetaBlocks, like_BTD: Tensor) -> Tensor:
    """Rows [R, D] at their places among [B, T, D], 0 elsewhere."""
    return torch.zeros_like(like_BTD).flatten(0, 1).index_copy(0, blocks.rows_R, x_RD).view_as(like_BTD)


def dense_scores(scores_PNLL: Tensor, blocks: MetaBlocks, B: int, T: int) -> Tensor:
    """Scores of the padded blocks of meta rows as [B, N, T, T], -inf between all other places."""
    P, N, L, _ = scores_PNLL.shape
    place_R = torch.arange(P * L, device=scores_PNLL.device) if blocks.unpad_R is None else blocks.unpad_R
    column_PL = blocks.pad(blocks.rows_R % T)
    rows_RNL = scores_PNLL.transpose(1, 2).flatten(0, 1)[place_R]
    dense_RNT = scores_PNLL.new_full((len(place_R), N, T), -torch.inf)
    # A padded place shows its block's first column, with -inf, as no row looks behind itself: the largest is right.
    columns_RNL = column_PL[place_R // L].unsqueeze(1).expand_as(rows_RNL)
    dense_RNT = dense_RNT.scatter_reduce(2, columns_RNL, rows_RNL, "amax")
    dense = scores_PNLL.new_full((B * T, N, T), -torch.inf).index_copy(0, blocks.rows_R, dense_RNT)
    return dense.view(B, T, N, T).transpose(1, 2)
