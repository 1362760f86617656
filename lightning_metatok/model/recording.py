"""Record what a forward pass does inside: the residual stream around every branch, and all attentions.

    before ──┬── update ──+── after = before ──┬── update ──+── ... ── after
             └─ a branch ─┘      of the next   └─ a branch ─┘

Hooks that are there only while `recorded` is open: the code of the model knows nothing of them, a model that is not
recorded pays nothing, and what it computes is the same, bit for bit. Attention probabilities are not taken from the
backend at work, which may never have them, but computed beside it by the reference backend.

What interventions change (`lightning_metatok.model.interventions`) is recorded as changed where they were entered
before `recorded`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from lightning_metatok.model.attention.backends import reference
from lightning_metatok.model.attention.layers import Attention, Plan
from lightning_metatok.model.attention.meta import MetaBlocks
from lightning_metatok.model.block import Block
from lightning_metatok.model.branch import Branch, Place
from lightning_metatok.model.transformer import MetaTransformer


@dataclass(frozen=True)
class BranchRecord:
    """One branch of one layer.

    Attributes:
        before_BTD, after_BTD: residual stream before and behind it.
        update_BTD: what it adds (before the norm, with norm="post"); 0 at rows that it leaves alone.
        values_BTD: of an attention, value vectors, heads side by side; 0 at rows without one.
        scores_BNTT: of an attention, scores as the softmax gets them, positions and mask in them, -inf where a query
            may not look; rows that it leaves alone are -inf throughout. None unless `attention` was asked for.
        sink_N: the score of nothing beside them; None: there is none.
    """

    before_BTD: Tensor
    update_BTD: Tensor
    after_BTD: Tensor
    values_BTD: Tensor | None = None
    scores_BNTT: Tensor | None = None
    sink_N: Tensor | None = None

    @property
    def probs_BNTT(self) -> Tensor:
        """Attention probabilities, 0 at rows that the branch leaves alone."""
        assert self.scores_BNTT is not None, "recorded without attention, or no attention"
        return reference.weights(self.scores_BNTT, self.sink_N)


@dataclass(frozen=True)
class LayerRecord:
    """One layer of one forward pass: the residual stream that enters and leaves, and its branches by name, in order.

    A branch that had nothing to work on, because the batch has no meta-tokens, is not among them; the stream behind it
    is that behind the branch before it.
    """

    before_BTD: Tensor
    branches: Mapping[str, BranchRecord]
    behind: Mapping[str, Tensor]
    after_BTD: Tensor

    def __getitem__(self, name: str) -> BranchRecord:
        return self.branches[name]

    def at(self, place: Place) -> Tensor | None:
        """States [B, T, D] at a place; None: values of an attention that had nothing to work on."""
        if place.branch is None:
            return self.before_BTD
        if not place.values:
            return self.behind[place.branch]
        return self.branches[place.branch].values_BTD if place.branch in self.branches else None


@dataclass
class Recording:
    """The last forward pass: its layers in order, and the hidden states that `MetaTransformer.logits` takes."""

    layers: list[LayerRecord] = field(default_factory=list)
    hidden_BTD: Tensor | None = None


@contextmanager
def recorded(model: MetaTransformer, *, attention: bool = True) -> Iterator[Recording]:
    """Record each forward pass of `model` in here; the next one takes the place of the one before.

    Args:
        attention: record scores, too; they cost B N T T numbers an attention.
    """
    model.config.check_can("probes")
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

    def register(self) -> list[RemovableHandle]:
        block = self.block
        handles = [block.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for branch in block.branches:
            module = getattr(block, branch.module)
            handles += [
                module.register_forward_pre_hook(self._before, with_kwargs=True),
                module.register_forward_hook(partial(self._updated, branch), with_kwargs=True),
                getattr(block, branch.behind).register_forward_hook(partial(self._behind, branch)),
            ]
        return [*handles, block.register_forward_hook(self._end)]

    def _begin(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert kwargs.get("memories") is None, "a pass with a cache has no whole attention to record"
        self.before_BTD = self.stream_BTD = cast(Tensor, args[0])
        self.found: dict[str, BranchRecord] = {}
        self.behind: dict[str, Tensor] = {}
        self.looked: dict[str, Tensor | None] = {}

    def _before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        plan: Plan = kwargs["plan"]
        self.looked = {}
        if not isinstance(module, Attention):
            return
        values, scores = module.look(args[0], cast(Any, plan), scores=self.attention)
        if plan.blocks is not None:
            values = _scattered(values, plan.blocks, self.stream_BTD)
            scores = None if scores is None else dense_scores(scores, plan.blocks, *self.stream_BTD.shape[:2])
        sink_N = module.weights.sink()
        of_scores = {} if scores is None else {"scores_BNTT": scores, "sink_N": sink_N}
        self.looked = {"values_BTD": values, **of_scores}

    def _updated(self, branch: Branch, _: Any, __: Any, kwargs: dict[str, Any], update: Tensor) -> None:
        blocks = kwargs["plan"].blocks
        update_BTD = update if blocks is None else _scattered(update, blocks, self.stream_BTD)
        self.found[branch.name] = BranchRecord(self.stream_BTD, update_BTD, self.stream_BTD, **self.looked)

    def _behind(self, branch: Branch, _: Any, __: Any, after_BTD: Tensor) -> None:
        # The block may add to this very tensor in place when its next branch has its turn.
        self.behind[branch.name] = self.stream_BTD = after_BTD.clone()
        if branch.name in self.found:
            self.found[branch.name] = replace(self.found[branch.name], after_BTD=self.stream_BTD)

    def _end(self, _: Any, __: Any, after_BTD: Tensor) -> None:
        self.recording.layers.append(LayerRecord(self.before_BTD, self.found, self.behind, after_BTD))


def _scattered(x_RD: Tensor, blocks: MetaBlocks, like_BTD: Tensor) -> Tensor:
    """Rows [R, D] at their places among [B, T, D], 0 elsewhere."""
    return torch.zeros_like(like_BTD).flatten(0, 1).index_copy(0, blocks.rows_R, x_RD).view_as(like_BTD)


def dense_scores(
    scores_PNLL: Tensor,
    blocks: MetaBlocks,
    B: int,
    T: int,
) -> Tensor:
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
