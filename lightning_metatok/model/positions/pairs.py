"""Pairs of a head's dimensions, and how they are turned: what all encodings that rotate have in common.

half          pair p of R dimensions is (x_p, x_{p + R/2}), as in Llama and GPT-NeoX
interleaved   pair p is (x_2p, x_{2p + 1}), as in GPT-J
"""

from typing import Literal

import torch
from torch import Tensor

Pairing = Literal["half", "interleaved"]


def turn(
    x_BNTH: Tensor,
    cos: Tensor,
    sin: Tensor,
    pairing: Pairing,
) -> Tensor:
    """Turn the first R dimensions of `x`; cos and sin [..., T, R / 2] broadcast over samples and heads."""
    first, second, rest = pairs(x_BNTH, 2 * cos.shape[-1], pairing)
    turned = (first * cos - second * sin, second * cos + first * sin)
    whole = torch.cat(turned, dim=-1) if pairing == "half" else torch.stack(turned, dim=-1).flatten(-2)
    return torch.cat((whole.to(x_BNTH.dtype), rest), dim=-1)


def pairs(x_BNTH: Tensor, rotary_dim: int, pairing: Pairing) -> tuple[Tensor, Tensor, Tensor]:
    """The first and the second of each pair, [..., R / 2] each, and what is not turned."""
    turned, rest = x_BNTH[..., :rotary_dim], x_BNTH[..., rotary_dim:]
    if pairing == "half":
        first, second = turned.chunk(2, dim=-1)
    else:
        first, second = turned[..., 0::2], turned[..., 1::2]
    return first, second, rest


def identity_where_dropped(cos: Tensor, sin: Tensor, keep_BT: Tensor | None) -> tuple[Tensor, Tensor]:
    """cos = 1 and sin = 0 where keep is False; both [B, 1 or N, T, R / 2]."""
    if keep_BT is None:
        return cos, sin
    dropped_B1T1 = ~keep_BT[:, None, :, None]
    return cos.masked_fill(dropped_B1T1, 1), sin.masked_fill(dropped_B1T1, 0)
