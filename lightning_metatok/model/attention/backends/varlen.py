"""HOW, on CUDA in 16 bits: PyTorch's attention of sequences of different lengths, without padding.

For the blocks of extra rows that meta-attention gathers: their borders are all that the kernel needs, and no other
package than PyTorch.
"""

from functools import cache

import torch
from torch import Tensor

from lightning_metatok.model.attention.backends.reference import Score

NAME = "varlen"
TAKES_SCORES = False
TAKES_SIGHTS = False
TAKES_MASKS = False
HALVES = (torch.float16, torch.bfloat16)


def why_not(*, device: torch.device, dtype: torch.dtype, dense_mask: bool, score: bool) -> str | None:
    """Why this backend cannot do the job, or None. Runs a tiny kernel once: an import proves nothing."""
    if device.type != "cuda":
        return f"its kernels need CUDA, not {device.type}"
    if dtype not in HALVES:
        return f"its kernels have 16 bits, not {str(dtype).removeprefix('torch.')}"
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
    """As `reference.attend`, causal only: each sample is a block."""
    assert mask is None, "varlen takes causal blocks only"
    assert score is None, "varlen cannot transform scores"
    B, N, T, H = q_BNQH.shape
    q, k, v = (x.transpose(1, 2).reshape(B * T, N, H) for x in (q_BNQH, k_BNKH, v_BNKH))
    return attend_ragged(q, k, v, [T] * B, dropout).view(B, T, N, H).transpose(1, 2)


def attend_ragged(q_RNH: Tensor, k_RNH: Tensor, v_RNH: Tensor, lengths: list[int], dropout: float) -> Tensor:
    """Causal attention inside each of the consecutive blocks of rows whose lengths are given; [R, N, H]."""
    from torch.nn.attention.varlen import varlen_attn

    assert dropout == 0, "varlen has no dropout"
    behind = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    behind = behind.to(q_RNH.device, non_blocking=True)
    out = varlen_attn(q_RNH, k_RNH, v_RNH, behind, behind, max(lengths), max(lengths), window_size=(-1, 0))
    assert isinstance(out, Tensor), "nothing beside the output was asked for"
    return out


@torch.compiler.assume_constant_result  # a compiler that traces into it would try at every compilation
def _kernel_failure() -> str | None:
    return _tried()


@cache
def _tried() -> str | None:
    x = torch.zeros(4, 1, 8, device="cuda", dtype=torch.bfloat16)
    try:
        attend_ragged(x, x, x, [3, 1], 0.0)
    except (ImportError, NotImplementedError, RuntimeError) as error:
        return f"its kernel does not run: {str(error).splitlines()[0]}"
    return None
