"""HOW, where scores are transformed: as the reference, but a block of query rows at a time.

    . .            under a causal mask no block looks at keys behind it, so that early blocks have more rows;
    . . .          a block's scores are computed, used and forgotten, and the backward pass computes them again
    . . . .

What is alive at once is a block of `BLOCK` scores, whatever T is, instead of all T x T of every head. It costs the
forward pass twice. Where one block holds all scores this is the reference itself.

The backward pass is written out rather than left to torch.utils.checkpoint: gradients of keys are added up in one place
instead of one copy a block, and nothing is allocated between blocks that outlives them, which would keep the allocator
from using a block's memory for the next (measured: 3 GB instead of 0.3 at T = 8192).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_metatok.model.attention import masks
from lightning_metatok.model.attention.backends import chosen, reference
from lightning_metatok.model.attention.backends.reference import Score
from lightning_metatok.model.attention.sight import Sight
from lightning_metatok.model.positions.base import Rows

NAME = "blocked"
TAKES_SCORES = True
TAKES_SIGHTS = True
TAKES_MASKS = True
attend_ragged = None
Seen = Tensor | Sight | None
BLOCK = 2**21
"""Scores in a block, those of all samples and heads together: 8 MB in float32."""


def why_not(
    *,
    device: torch.device,
    dtype: torch.dtype,
    dense_mask: bool,
    score: bool,
) -> str | None:
    """Why this backend cannot do the job; None: it can, always."""
    return None


def attend(
    q_BNQH: Tensor,
    k_BNKH: Tensor,
    v_BNKH: Tensor,
    *,
    mask: Tensor | None = None,
    sight: Sight | None = None,
    score: Score | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """As `reference.attend`; a `sight` may stand in place of the mask, which is never made as a whole then."""
    if sight is not None and score is None and dropout == 0 and chosen.pays(sight):
        return _by_choice(q_BNQH, k_BNKH, v_BNKH, sight)
    if q_BNQH.shape[:3].numel() * k_BNKH.shape[2] <= BLOCK:
        mask = mask if sight is None else sight.mask
        return reference.attend(q_BNQH, k_BNKH, v_BNKH, mask=mask, score=score, dropout=dropout)
    assert (mask, sight) != (None, None) or q_BNQH.shape[2] == k_BNKH.shape[2], "causal needs as many queries as keys"
    return _by_blocks(q_BNQH, k_BNKH, v_BNKH, mask if sight is None else sight, score, dropout)


@torch.compiler.disable  # As below.
def _by_choice(q: Tensor, k: Tensor, v: Tensor, sight: Sight) -> Tensor:
    return chosen.attend(q, k, v, sight)


@torch.compiler.disable  # The compiler would unroll the loop, hundreds of times at T in the ten thousands.
def _by_blocks(q: Tensor, k: Tensor, v: Tensor, mask: Seen, score: Score | None, dropout: float) -> Tensor:
    out: Tensor = _Blocks.apply(mask, score, dropout, q, k, v, *(() if score is None else score.parameters))
    return out


def _cut(n_samples_heads: int, n_queries: int, n_keys: int, causal: bool) -> Iterator[tuple[int, int]]:
    """First row of each block and the row behind its last."""
    area, first = BLOCK / n_samples_heads, 0
    while first < n_queries:
        # A causal block of r rows has first + r columns: r (first + r) = area.
        rows = (math.sqrt(first**2 + 4 * area) - first) / 2 if causal else area / n_keys
        end = min(n_queries, first + max(1, int(rows)))
        yield first, end
        first = end


def _where(first: int, end: int, q: Tensor, k: Tensor, mask: Seen) -> tuple[int, int, Tensor | None]:
    """Of a block of rows: the place of the first among the keys, how many keys it needs, and its rows of the mask."""
    if mask is None:
        return first, end, None
    n_queries, n_keys = q.shape[2], k.shape[2]
    if isinstance(mask, Sight):
        return n_keys - n_queries + first, n_keys, mask.rows(first, end)
    return n_keys - n_queries + first, n_keys, mask.expand(*mask.shape[:-2], n_queries, n_keys)[..., first:end, :]


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mask: Seen,
        score: Score | None,
        dropout: float,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.mask, ctx.score, ctx.dropout, ctx.parameters = mask, score, dropout, parameters
        device = q.device.type
        ctx.autocast = {"dtype": torch.get_autocast_dtype(device), "enabled": torch.is_autocast_enabled(device)}
        ctx.random = _random_state(q.device) if dropout > 0 else None
        out = torch.empty(*q.shape[:3], v.shape[3], dtype=v.dtype, device=v.device)
        with torch.autocast(device, **ctx.autocast, cache_enabled=False):
            for first, end in _cut(q.shape[:2].numel(), q.shape[2], k.shape[2], mask is None):
                place, seen, rows = _where(first, end, q, k, mask)
                block = q[:, :, first:end], k[:, :, :seen], v[:, :, :seen]
                out[:, :, first:end] = _rows(*block, place, rows, score, dropout)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = (x.detach() for x in ctx.saved_tensors)
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        trained = [p for p in ctx.parameters if p.requires_grad]
        totals: dict[int, Tensor] = {}
        with (
            torch.enable_grad(),
            torch.autocast(q.device.type, **ctx.autocast, cache_enabled=False),
            nullcontext() if ctx.random is None else _replayed(q.device, ctx.random),
        ):
            for first, end in _cut(q.shape[:2].numel(), q.shape[2], k.shape[2], ctx.mask is None):
                place, seen, rows = _where(first, end, q, k, ctx.mask)
                block = [q[:, :, first:end], k[:, :, :seen], v[:, :, :seen]]
                block = [x.detach().requires_grad_() for x in block]
                out = _rows(block[0], block[1], block[2], place, rows, ctx.score, ctx.dropout)
                wrt = [*block, *trained]
                grads = torch.autograd.grad(out, wrt, grad_out[:, :, first:end], allow_unused=True)
                for total, grad in ((dq[:, :, first:end], grads[0]), (dk[:, :, :seen], grads[1])):
                    total += grad
                dv[:, :, :seen] += grads[2]
                for parameter, grad in zip(trained, grads[3:], strict=True):
                    if grad is not None:
                        totals[id(parameter)] = totals.get(id(parameter), 0) + grad
        return None, None, None, dq, dk, dv, *(totals.get(id(p)) for p in ctx.parameters)


def _rows(
    q: Tensor, k: Tensor, v: Tensor, place: int, mask: Tensor | None, score: Score | None, dropout: float
) -> Tensor:
    """Output of a block of queries, the first of which is at `place` among the keys; `mask` is that of its rows."""
    if mask is not None:
        return reference.attend(q, k, v, mask=mask, score=score, dropout=dropout, first=place)
    # Causal: every query sees itself, so what the reference does for rows that see nothing is left out.
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if score is not None:
        scores = score(scores, Rows(place, q, k))
    scores = scores.masked_fill(~masks.causal(q.shape[2], k.shape[2], q.device), -torch.inf)
    sink_N = None if score is None else score.sink_N
    weights = scores.softmax(dim=-1) if sink_N is None else reference.weights(scores, sink_N)
    weights = torch.nn.functional.dropout(weights, dropout)
    return weights.to(v.dtype) @ v


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


@contextmanager
def _replayed(device: torch.device, state: Tensor) -> Iterator[None]:
    """Draw what was drawn from `state` on, and leave the generator as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        (torch.cuda.set_rng_state if device.type == "cuda" else torch.set_rng_state)(state)
        yield
