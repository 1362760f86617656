"""Pairs of a head's dimensions, and how they are turned: what all encodings that rotate have in common.

half          pair p of R dimensions is (x_p, x_{p + R/2}), as in Llama and GPT-NeoX
interleaved   pair p is (x_2p, x_{2p + 1}), as in GPT-J
"""

from typing import Any, Literal

import torch
from torch import Tensor

Pairing = Literal["half", "interleaved"]


def turn(x_BNTH: Tensor, cos: Tensor, sin: Tensor, pairing: Pairing) -> Tensor:
    """Turn the first R dimensions of `x`; cos and sin [..., T, R / 2] broadcast over samples and heads.

    Eagerly by a kernel of four products that write where their results belong, and whose gradient is the turn back;
    `turn_plainly` is what it equals, and what a compiler makes more of.
    """
    if torch.compiler.is_compiling() or cos.requires_grad or sin.requires_grad:
        return turn_plainly(x_BNTH, cos, sin, pairing)
    if not torch.is_grad_enabled():  # a function of autograd's costs as much again for the one row of a new token
        return _turned(x_BNTH, cos, sin, pairing, back=False)
    turned: Tensor = _Turn.apply(x_BNTH, cos, sin, pairing)
    return turned


def turn_plainly(x_BNTH: Tensor, cos: Tensor, sin: Tensor, pairing: Pairing) -> Tensor:
    """The same, as it is written in papers; gradients reach cos and sin, too."""
    first, second, rest = pairs(x_BNTH, 2 * cos.shape[-1], pairing)
    turned = (first * cos - second * sin, second * cos + first * sin)
    whole = torch.cat(turned, dim=-1) if pairing == "half" else torch.stack(turned, dim=-1).flatten(-2)
    whole = whole.to(x_BNTH.dtype)
    return torch.cat((whole, rest), dim=-1) if rest.shape[-1] else whole


def pairs(x_BNTH: Tensor, rotary_dim: int, pairing: Pairing) -> tuple[Tensor, Tensor, Tensor]:
    """The first and the second of each pair, [..., R / 2] each, and what is not turned."""
    return *_halves(x_BNTH, rotary_dim, pairing), x_BNTH[..., rotary_dim:]


def _halves(x: Tensor, rotary_dim: int, pairing: Pairing) -> tuple[Tensor, Tensor]:
    turned = x if rotary_dim == x.shape[-1] else x[..., :rotary_dim]  # a view less: small models count them
    if pairing == "half":
        first, second = turned.chunk(2, dim=-1)
        return first, second
    return turned[..., 0::2], turned[..., 1::2]


def identity_where_dropped(cos: Tensor, sin: Tensor, keep_BT: Tensor | None) -> tuple[Tensor, Tensor]:
    """cos = 1 and sin = 0 where keep is False; both [B, 1 or N, T, R / 2]."""
    if keep_BT is None:
        return cos, sin
    dropped_B1T1 = ~keep_BT[:, None, :, None]
    return cos.masked_fill(dropped_B1T1, 1), sin.masked_fill(dropped_B1T1, 0)


class _Turn(torch.autograd.Function):
    """A turn by an angle; its gradient is the turn by the same angle back, times the same scale."""

    @staticmethod
    def forward(ctx: Any, x_BNTH: Tensor, cos: Tensor, sin: Tensor, pairing: Pairing) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.pairing = pairing
        return _turned(x_BNTH, cos, sin, pairing, back=False)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_turned: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        return _turned(d_turned, cos, sin, ctx.pairing, back=True), None, None, None


def _turned(x_BNTH: Tensor, cos: Tensor, sin: Tensor, pairing: Pairing, *, back: bool) -> Tensor:
    exact = torch.promote_types(x_BNTH.dtype, cos.dtype)
    out = torch.empty(x_BNTH.shape, dtype=exact, device=x_BNTH.device)
    rotary_dim = 2 * cos.shape[-1]
    first, second = _halves(x_BNTH, rotary_dim, pairing)
    to_first, to_second = _halves(out, rotary_dim, pairing)
    sign = -1 if back else 1
    torch.mul(first, cos, out=to_first)
    to_first.addcmul_(second, sin, value=-sign)
    torch.mul(second, cos, out=to_second)
    to_second.addcmul_(first, sin, value=sign)
    if rotary_dim < x_BNTH.shape[-1]:
        out[..., rotary_dim:] = x_BNTH[..., rotary_dim:]
    return out.to(x_BNTH.dtype)
