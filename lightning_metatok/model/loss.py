"""Cross-entropy over a large vocabulary, a chunk of rows at a time: the logits are never there as a whole.

    logits_KV = hidden_KD @ weight_VD.T                   K scored rows; 50,257 ids of 8,192 rows take 1.6 GB
    nll_K     = logsumexp(logits_KV) - logits_KV[target]

`summed` is what training minimises. Its gradient is linear in what comes from above, one number, so it is computed in
the forward pass while a chunk's logits are at hand, (softmax - one-hot) W and (softmax - one-hot)^T hidden, and only
scaled in the backward pass. That costs the three matrix products of the plain loss; the logits are neither stored nor
computed twice. (The idea is that of Liger-Kernel's fused linear cross-entropy, arXiv 2410.10989.)
`each` gives the losses of rows that a caller weighs as it likes; it computes a chunk's logits again for the gradient.

Equal to `torch.nn.functional.cross_entropy` of the whole logits: the same products in the same precision, autocast's
where it is on; softmax and sums are float32, or float64 where the hidden states are.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = {"cpu": 2**23, "cuda": 2**28}
"""Logits in a chunk, by device: 32 MiB of float32 stay near a CPU, and a GPU wants large products (1 GiB)."""


class Loss(NamedTuple):
    """What `summed` returns."""

    sum: Tensor
    """Of all rows, in nats; the gradient goes through it."""

    nll_K: Tensor
    """Of each row; no gradient goes through these."""

    likeliest_K: Tensor
    """The likeliest id of each row; empty where it was not asked for."""


def summed(
    hidden_KD: Tensor,
    weight_VD: Tensor,
    targets_K: Tensor,
    *,
    likeliest: bool = False,
    rows: int | None = None,
    fused: bool = False,
) -> Loss:
    """The sum of the losses of K rows, and what it is made of.

    Args:
        hidden_KD: normed hidden states of the rows that are scored. weight_VD: the head's weight. targets_K: the ids
            to predict, none of them negative. likeliest: whether the likeliest ids are wanted. rows: of a chunk; None:
            as many as the device should take at once. fused: let torch.compile make one kernel of what is done to a
            chunk's logits, which on a GPU takes their memory traffic from ten passes to three.
    """
    rows = rows or rows_at_once(weight_VD.shape[0], hidden_KD.device)
    return Loss(*_Summed.apply(hidden_KD, weight_VD, targets_K, rows, likeliest, fused))


def each(hidden_KD: Tensor, weight_VD: Tensor, targets_K: Tensor, *, rows: int | None = None) -> Tensor:
    """The loss of each of K rows in nats, [K], with a gradient each; arguments as for `summed`."""
    rows = rows or rows_at_once(weight_VD.shape[0], hidden_KD.device)
    if not torch.is_grad_enabled():
        return summed(hidden_KD, weight_VD, targets_K, rows=rows).nll_K
    parts = [
        checkpoint(whole, h_kD, weight_VD, t_k, use_reentrant=False, preserve_rng_state=False)
        for h_kD, t_k in zip(hidden_KD.split(rows), targets_K.split(rows), strict=True)
    ]
    return torch.cat(parts)


def whole(hidden_KD: Tensor, weight_VD: Tensor, targets_K: Tensor) -> Tensor:
    """The loss of each row from all logits at once, [K]: what the other two must equal."""
    logits_KV = F.linear(hidden_KD, weight_VD)
    return F.cross_entropy(logits_KV.to(_exact(logits_KV.dtype)), targets_K, reduction="none")


def rows_at_once(n_ids: int, device: torch.device) -> int:
    """Rows of a chunk."""
    return max(1, LOGITS_AT_ONCE.get(device.type, LOGITS_AT_ONCE["cuda"]) // n_ids)


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


class _Summed(torch.autograd.Function):
    """Its gradients wait in `ctx`, of a loss of 1; the backward pass scales them in place, so there is one only."""

    @staticmethod
    def forward(
        ctx: Any, hidden_KD: Tensor, weight_VD: Tensor, targets_K: Tensor, rows: int, likeliest: bool, fused: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        device, K = hidden_KD.device, len(hidden_KD)
        to_hidden, to_weight = ctx.needs_input_grad[:2]
        mixed = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if mixed else hidden_KD.dtype
        exact = _exact(dtype)
        nll_K = torch.empty(K, dtype=exact, device=device)
        likeliest_K = torch.empty(K if likeliest else 0, dtype=torch.int64, device=device)
        d_hidden_KD = torch.empty_like(hidden_KD) if to_hidden else None
        # Summed over chunks in float32, where the products are narrower.
        d_weight_VD = torch.zeros(weight_VD.shape, dtype=exact, device=device) if to_weight else None
        w_VD = weight_VD.to(dtype)
        with torch.autocast(device.type, enabled=False):
            for start in range(0, K, rows):
                chunk = slice(start, start + rows)
                h_kD, target_k1 = hidden_KD[chunk].to(dtype), targets_K[chunk].unsqueeze(1)
                logits_kV = F.linear(h_kD, w_VD)
                if likeliest:
                    torch.argmax(logits_kV, dim=1, out=likeliest_K[chunk])
                if fused:
                    nll_K[chunk], d_logits_kV = _kernel()(logits_kV, target_k1, exact)
                    del logits_kV
                else:
                    log_p_kV = logits_kV.log_softmax(dim=1, dtype=exact)
                    del logits_kV
                    own_k1 = log_p_kV.gather(1, target_k1)
                    torch.neg(own_k1.squeeze(1), out=nll_K[chunk])
                    if d_hidden_KD is None and d_weight_VD is None:
                        continue
                    # p - 1 at the target is as exact as p itself where the model is sure.
                    d_logits_kV = log_p_kV.exp_().scatter_(1, target_k1, own_k1.expm1()).to(dtype)
                    del log_p_kV
                if d_hidden_KD is not None:
                    d_hidden_KD[chunk] = d_logits_kV @ w_VD
                if d_weight_VD is not None and dtype == exact:
                    d_weight_VD.addmm_(d_logits_kV.T, h_kD, beta=1 if start else 0)
                elif d_weight_VD is not None:
                    d_weight_VD += d_logits_kV.T @ h_kD
        ctx.gradients = (d_hidden_KD, None if d_weight_VD is None else d_weight_VD.to(weight_VD.dtype))
        ctx.mark_non_differentiable(nll_K, likeliest_K)
        return nll_K.sum(), nll_K, likeliest_K

    @staticmethod
    def backward(ctx: Any, *above: Any) -> Any:
        gradients, ctx.gradients = ctx.gradients, None
        assert gradients is not None, "a summed loss keeps its gradient for one backward pass"
        return (*(g if g is None else g.mul_(above[0].to(g.dtype)) for g in gradients), None, None, None, None)


def _of_logits(logits_kV: Tensor, target_k1: Tensor, exact: torch.dtype) -> tuple[Tensor, Tensor]:
    """The losses of a chunk, and the gradient of their sum to its logits, in the dtype of these."""
    log_p_kV = logits_kV.log_softmax(dim=1, dtype=exact)
    own_k1 = log_p_kV.gather(1, target_k1)
    is_target_kV = torch.arange(logits_kV.shape[1], device=logits_kV.device) == target_k1
    return -own_k1.squeeze(1), torch.where(is_target_kV, own_k1.expm1(), log_p_kV.exp()).to(logits_kV.dtype)


@cache
def _kernel() -> Callable[[Tensor, Tensor, torch.dtype], tuple[Tensor, Tensor]]:
    return cast(Callable[[Tensor, Tensor, torch.dtype], tuple[Tensor, Tensor]], torch.compile(_of_logits))
