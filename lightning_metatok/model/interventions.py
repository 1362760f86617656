"""Change one thing inside a forward pass and leave the rest: what answers then changes depended on it.

    patch      at some rows the residual stream is another one, as it enters a layer,   what a place HOLDS
               or behind one of its branches; or the value vectors of an attention are
    allowed    attention may use only some (query, key) pairs, in some layers           which PATHS carry
    silent     what the mechanism adds to some layers adds nothing                      what it is FOR

Hooks that are there only while `intervened` is open. An intervention that changes nothing gives the same outputs, bit
for bit: a mask that allows everything leaves the plan of attention alone, and a patch with the same states puts the
same numbers there.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from lightning_metatok.errors import UserError
from lightning_metatok.model.attention import masks
from lightning_metatok.model.attention.layers import Attention, AttentionPlan
from lightning_metatok.model.attention.meta import MetaBlocks
from lightning_metatok.model.block import Block
from lightning_metatok.model.branch import BEFORE, EVERYWHERE, Branch, Place
from lightning_metatok.model.positions.base import Rows
from lightning_metatok.model.transformer import MetaTransformer


@dataclass(frozen=True)
class Patch:
    """States [B, T, D], or what broadcasts to them, in place of the model's own at the rows where `rows_BT` is True.

    What a layer reads and hands on within itself never enters a layer: patch every `place` before you say that a row
    holds nothing.
    """

    rows_BT: Tensor
    states_BTD: Tensor
    place: Place = BEFORE

    def put(self, own_BTD: Tensor) -> Tensor:
        """The model's own states with these in their place."""
        return torch.where(self.rows_BT.unsqueeze(-1), self.states_BTD.to(own_BTD.dtype), own_BTD)


@dataclass(frozen=True)
class Intervention:
    """What is changed; the default: nothing.

    Attributes:
        patches: by their layer, from 0.
        allowed_BTT: bool, True where a query (row) may use a key (column); a place always sees itself. None: all may.
        where: the branch that `allowed_BTT` holds for, by name; EVERYWHERE: all attentions.
        layers: layers it holds in; None: all.
        silent: layers in which the branches of the mechanism add nothing (with norm="post" the norm is still applied).
    """

    patches: Mapping[int, Patch] = field(default_factory=dict)
    allowed_BTT: Tensor | None = None
    where: str = EVERYWHERE
    layers: Collection[int] | None = None
    silent: Collection[int] = ()


@contextmanager
def intervened(model: MetaTransformer, intervention: Intervention) -> Iterator[None]:
    """Run every forward pass of `model` in here as `intervention` says. Not with a cache."""
    model.config.check_can("probes")
    handles: list[RemovableHandle] = []
    allowed_BTT = intervention.allowed_BTT
    if allowed_BTT is not None:
        T = allowed_BTT.shape[-1]
        allowed_BTT = allowed_BTT | torch.eye(T, dtype=torch.bool, device=allowed_BTT.device)
        if bool(allowed_BTT[..., masks.causal(T, device=allowed_BTT.device)].all()):
            allowed_BTT = None
    hooks = _Hooks(replace(intervention, allowed_BTT=allowed_BTT), model.config.n_layers)
    try:
        handles.append(model.register_forward_pre_hook(hooks.begin))
        for block in model.blocks:
            handles += hooks.register(cast(Block, block))
        with torch.compiler.set_stance("force_eager"):  # compiled code would not call the hooks
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Hooks:
    def __init__(self, intervention: Intervention, n_layers: int) -> None:
        self.change, self.layer = intervention, -1
        self.values: tuple[Patch, MetaBlocks | None] | None = None
        self.masked_layers = range(n_layers) if intervention.layers is None else intervention.layers

    def register(self, block: Block) -> list[RemovableHandle]:
        change = self.change
        handles = [block.register_forward_pre_hook(self.enter)]
        patched = {patch.place for patch in change.patches.values()}
        for branch in block.branches:
            module = getattr(block, branch.module)
            if Place(branch.name) in patched:
                behind = getattr(block, branch.behind)
                handles.append(behind.register_forward_hook(partial(self.behind, branch)))
            if Place(branch.name, values=True) in patched:
                assert isinstance(module, Attention), f"{branch.name} is no attention: it has no values"
                handles += [
                    module.register_forward_pre_hook(partial(self.attend, branch), with_kwargs=True),
                    module.weights.qkv.register_forward_hook(self.project),
                    module.register_forward_hook(self.attended),
                ]
            masked = change.allowed_BTT is not None and change.where in (EVERYWHERE, branch.name)
            if masked and isinstance(module, Attention):
                handles.append(module.register_forward_pre_hook(self.mask, with_kwargs=True))
            if change.silent and branch.added:
                handles.append(module.register_forward_hook(self.silence))
        return handles

    def begin(self, *_: Any) -> None:
        self.layer = -1

    def enter(self, _: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """A block that all layers share is entered several times."""
        self.layer += 1
        patch = self.patch(BEFORE)
        return None if patch is None else (patch.put(args[0]), *args[1:])

    def patch(self, place: Place) -> Patch | None:
        """The patch of this layer, where it is one of this place."""
        patch = self.change.patches.get(self.layer)
        return patch if patch is not None and patch.place == place else None

    def behind(
        self,
        branch: Branch,
        _: Any,
        __: Any,
        stream_BTD: Tensor,
    ) -> Tensor | None:
        patch = self.patch(Place(branch.name))
        return None if patch is None else patch.put(stream_BTD)

    def attend(
        self,
        branch: Branch,
        _: Any,
        __: Any,
        kwargs: dict[str, Any],
    ) -> None:
        """Weights may be lent to another attention: only this one's values are patched."""
        patch = self.patch(Place(branch.name, values=True))
        self.values = None if patch is None else (patch, kwargs["plan"].blocks)

    def project(self, _: Any, __: Any, qkv: Tensor) -> Tensor | None:
        if self.values is None:
            return None
        patch, blocks = self.values
        rows, states = patch.rows_BT.unsqueeze(-1), patch.states_BTD.to(qkv.dtype)
        if blocks is not None:
            rows, states = blocks.gather(rows), blocks.gather(states)
        before = qkv.shape[-1] - states.shape[-1]  # of q and k, which an attention without content has not
        if before not in (0, 2 * states.shape[-1]):
            raise UserError("model.n_kv_heads: values that heads share cannot be patched; expected one set a head")
        return torch.cat((qkv[..., :before], torch.where(rows, states, qkv[..., before:])), dim=-1)

    def attended(self, *_: Any) -> None:
        self.values = None

    def mask(
        self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self.layer not in self.masked_layers:
            return None
        assert self.change.allowed_BTT is not None
        return args, {**kwargs, "plan": masked_plan(kwargs["plan"], self.change.allowed_BTT)}

    def silence(self, _: Any, __: Any, update: Tensor) -> Tensor | None:
        return torch.zeros_like(update) if self.layer in self.change.silent else None


def masked_plan(plan: AttentionPlan, allowed_BTT: Tensor) -> AttentionPlan:
    """Return `plan` with fewer pairs: those that it and `allowed_BTT` allow."""
    allowed_B1TT = allowed_BTT.unsqueeze(1)
    if plan.blocks is not None:
        return replace(plan, score=_masked_score(plan, plan.blocks, allowed_BTT))
    mask = plan.mask
    if mask is None:
        T = allowed_BTT.shape[-1]
        return replace(plan, sight=None, table=allowed_B1TT & masks.causal(T, device=allowed_BTT.device))
    if mask.dtype == torch.bool:
        return replace(plan, sight=None, table=mask & allowed_B1TT)
    return replace(plan, sight=None, table=mask.masked_fill(~allowed_B1TT, -torch.inf))


def _masked_score(plan: AttentionPlan, blocks: MetaBlocks, allowed_BTT: Tensor) -> Any:
    """Blocks of extra rows have no mask; a transform of their scores, which every encoding may have, does the same."""
    T = allowed_BTT.shape[-1]
    rows_PL = blocks.pad(blocks.rows_R)
    L = rows_PL.shape[1]
    columns_PLL = (rows_PL % T).unsqueeze(1).expand(-1, L, -1)
    forbidden_P1LL = ~allowed_BTT.flatten(0, 1)[rows_PL].gather(2, columns_PLL).unsqueeze(1)
    inner = plan.score

    def score(scores_PNQK: Tensor, *, layer: int, rows: Rows) -> Tensor:
        if inner is not None:
            scores_PNQK = inner(scores_PNQK, layer=layer, rows=rows)
        n_queries, n_keys = scores_PNQK.shape[-2:]
        part = forbidden_P1LL[:, :, rows.first : rows.first + n_queries, :n_keys]
        return scores_PNQK.masked_fill(part, -torch.inf)

    return score
