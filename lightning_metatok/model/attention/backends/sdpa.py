"""HOW, the default: PyTorch's scaled_dot_product_attention, on CPU and CUDA."""

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from lightning_metatok.model.attention.backends.reference import Score

NAME = "sdpa"
TAKES_SCORES = False
TAKES_SIGHTS = False
TAKES_MASKS = True
attend_ragged = None


def why_not(
    *,
    device: torch.device,
    dtype: torch.dtype,
    dense_mask: bool,
    score: bool,
) -> str | None:
    """Why this backend cannot do the job, or None."""
    return "it cannot transform scores" if score else None


def attend(
    q_BNQH: Tensor,
    k_BNKH: Tensor,
    v_BNKH: Tensor,
    *,
    mask: Tensor | None = None,
    score: Score | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """As `reference.attend`, without `score`."""
    assert score is None, "sdpa cannot transform scores"
    alone = q_BNQH.shape[-2] == 1
    assert mask is not None or alone or q_BNQH.shape[-2] == k_BNKH.shape[-2], "causal needs as many queries as keys"
    # A mask that adds large finite numbers breaks the gradients of the fused kernels: they recompute the weights from
    # the log of a sum near those numbers, which float32 rounds by 64 at 1e9. The plain kernel keeps the weights.
    adds = mask is not None and mask.dtype != torch.bool
    with sdpa_kernel(SDPBackend.MATH) if adds else nullcontext():
        return scaled_dot_product_attention(
            q_BNQH, k_BNKH, v_BNKH, attn_mask=mask, is_causal=mask is None and not alone, dropout_p=dropout
        )
