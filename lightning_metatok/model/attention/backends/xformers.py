"""HOW, on CUDA: xformers' memory-efficient kernels, which take blocks of different lengths without padding.

The only file that imports xformers, and only when used: the import costs seconds. Its masks can be made and
materialised on any machine, its kernels run on CUDA alone.
"""

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_metatok.model.attention.backends.reference import Score

if TYPE_CHECKING:
    from xformers.ops.fmha.attn_bias import BlockDiagonalCausalMask

NAME = "xformers"
TAKES_SCORES = False
TAKES_SIGHTS = False
TAKES_MASKS = False


def why_not(
    *,
    device: torch.device,
    dtype: torch.dtype,
    dense_mask: bool,
    score: bool,
) -> str | None:
    """Why this backend cannot do the job, or None. Runs a tiny kernel once: an import proves nothing."""
    if device.type != "cuda":
        return f"its kernels need CUDA, not {device.type}"
    if dtype == torch.float64:
        return "its kernels have no float64"
    if dense_mask or score:
        return "it takes causal blocks only"
    return _kernel_failure()


def attend(
    q_BNQH: Tensor,
    k_BNKH: Tensor,
    v_BNKH: Tensor,
    *,
    mask: Tensor | None = None,
    score: Score | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """As `reference.attend`, causal only."""
    assert mask is None, "xformers takes causal blocks only"
    assert score is None, "xformers cannot transform scores"
    from xformers.ops import LowerTriangularMask, memory_efficient_attention

    q, k, v = (x.transpose(1, 2) for x in (q_BNQH, k_BNKH, v_BNKH))
    out_BTNH: Tensor = memory_efficient_attention(q, k, v, attn_bias=LowerTriangularMask(), p=dropout)
    return out_BTNH.transpose(1, 2)


def attend_ragged(
    q_RNH: Tensor,
    k_RNH: Tensor,
    v_RNH: Tensor,
    lengths: list[int],
    dropout: float,
) -> Tensor:
    """Causal attention inside each of the consecutive blocks of rows whose lengths are given; [R, N, H]."""
    from xformers.ops import memory_efficient_attention

    q, k, v = (x.unsqueeze(0) for x in (q_RNH, k_RNH, v_RNH))
    out_1RNH: Tensor = memory_efficient_attention(q, k, v, attn_bias=block_mask(lengths), p=dropout)
    return out_1RNH.squeeze(0)


def block_mask(lengths: list[int]) -> "BlockDiagonalCausalMask":
    """The xformers description of consecutive causal blocks of rows."""
    from xformers.ops.fmha.attn_bias import BlockDiagonalCausalMask

    return BlockDiagonalCausalMask.from_seqlens(lengths)


@torch.compiler.assume_constant_result  # a compiler that traces into it would try at every compilation
def _kernel_failure() -> str | None:
    return _tried()


@cache
def _tried() -> str | None:
    x = torch.zeros(4, 1, 8, device="cuda", dtype=torch.float16)
    try:
        attend_ragged(x, x, x, [3, 1], 0.0)
    except (ImportError, NotImplementedError, RuntimeError) as error:
        return f"its kernel does not run: {str(error).splitlines()[0]}"
    return None
