"""Attention whose cost a token does not grow with the text: kernels and low rank, as OmniNet's authors have them.

    kernel     exp(q . k / sqrt H) = E[phi(q) . phi(k)],  phi(x) = exp(w . x' - |x'|^2 / 2),  x' = x / H^(1/4)
               out = phi(q) S / phi(q) z,  S = sum_j phi(k_j) v_j,  z = sum_j phi(k_j)      up to the query, or all
    low_rank   out = softmax(q (E k)^T / sqrt H) F v      E, F: learned, from n rows to `rank`, the same for all heads

Kernels: positive orthogonal random features (Performer: Choromanski et al. 2020, arXiv 2009.14794), drawn once. Those
of queries are scaled by their largest, which cancels out; those of keys are not, as that would look at later keys. Low
rank (Linformer: Wang et al. 2020, arXiv 2006.04768) mixes the rows of all places, and so is for encoders alone.

Rows are those of tokens side by side, A that ask and P that are looked at of each: [B, N, T * A, H], [B, N, K * P, H].
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from lightning_metatok.model.start import Start

BLOCK = 128
"""Tokens whose pairs are looked at one by one; those before them are summed up."""


class Kernel(nn.Module):
    """Attention by `rank` random features of each head."""

    w_RH: Tensor

    def __init__(self, rank: int, head_dim: int) -> None:
        super().__init__()
        self.register_buffer("w_RH", torch.empty(rank, head_dim))

    def draw(self, start: Start) -> None:
        """Draw the features."""
        start("w_RH", self.w_RH, _orthogonal)

    def forward(
        self,
        q_BNQH: Tensor,
        k_BNKH: Tensor,
        v_BNKH: Tensor,
        document_BK: Tensor | None,
        *,
        asking: int,
        looked_at: int,
        causal: bool,
    ) -> Tensor:
        """What each row is given, [B, N, T * A, H].

        Args:
            q_BNQH: of the last T tokens. k_BNKH, v_BNKH: of K tokens. document_BK: of these; None: one a sample.
            asking, looked_at: A and P. causal: rows of later tokens are not looked at; else q are of all tokens.
        """
        with torch.autocast(q_BNQH.device.type, enabled=False):
            q_BNQR = self._log(q_BNQH)
            q_BNQR = (q_BNQR - q_BNQR.detach().amax(dim=-1, keepdim=True)).exp()
            k_BNKR, v_BNKH1 = self._log(k_BNKH).exp(), pad(v_BNKH.to(q_BNQR.dtype), (0, 1), value=1.0)
            if causal:
                summed = _up_to_each(q_BNQR, k_BNKR, v_BNKH1, document_BK, asking=asking, looked_at=looked_at)
            else:
                summed = _over_all(q_BNQR, k_BNKR, v_BNKH1, document_BK)
            return (summed[..., :-1] / summed[..., -1:]).to(v_BNKH.dtype)

    def _log(self, x: Tensor) -> Tensor:
        x = x.to(self.w_RH.dtype) * x.shape[-1] ** -0.25
        return x @ self.w_RH.mT - x.square().sum(dim=-1, keepdim=True) / 2


class LowRank(nn.Module):
    """Attention to `rank` mixtures of up to `n` rows."""

    def __init__(self, rank: int, n: int) -> None:
        super().__init__()
        self.keys_Rn, self.values_Rn = (nn.Parameter(torch.empty(rank, n)) for _ in range(2))

    def draw(self, start: Start) -> None:
        """Draw them so that a mixture is as large as a row."""
        for name in ("keys_Rn", "values_Rn"):
            start(name, getattr(self, name), nn.init.normal_, std=1 / math.sqrt(self.keys_Rn.shape[1]))

    def forward(self, q_BNQH: Tensor, k_BNKH: Tensor, v_BNKH: Tensor) -> Tensor:
        """What each row is given, [B, N, T * A, H]; text that is shorter than `n` has the first of the weights."""
        n = k_BNKH.shape[2]
        return scaled_dot_product_attention(q_BNQH, self.keys_Rn[:, :n] @ k_BNKH, self.values_Rn[:, :n] @ v_BNKH)


def _up_to_each(
    q_BNQR: Tensor, k_BNKR: Tensor, v_BNKH: Tensor, document_BK: Tensor | None, *, asking: int, looked_at: int
) -> Tensor:
    """Sums over the rows of each token's document up to this token, block by block."""
    A, P = asking, looked_at
    K, before = k_BNKR.shape[2] // P, k_BNKR.shape[2] // P - q_BNQR.shape[2] // A  # tokens, and those that do not ask
    place_K = torch.arange(K, device=k_BNKR.device)
    state_BNRH, found = k_BNKR.new_zeros(*k_BNKR.shape[:2], k_BNKR.shape[3], v_BNKH.shape[3]), []
    carried_B1 = torch.zeros(()) if document_BK is None else document_BK[:, :1]  # the document that the state is of
    for first in range(0, K, BLOCK):
        end = min(first + BLOCK, K)
        k, v = (x[:, :, first * P : end * P] for x in (k_BNKR, v_BNKH))
        asks = slice(max(first, before), end)
        if asks.start < end:
            q = q_BNQR[:, :, (asks.start - before) * A : (end - before) * A]
            seen, earlier = place_K[asks, None] >= place_K[None, first:end], q @ state_BNRH
            if document_BK is not None:
                of_rows_BQ = document_BK[:, asks]
                seen = (seen & (of_rows_BQ[..., None] == document_BK[:, None, first:end]))[:, None]
                goes_on_BQ = torch.eq(of_rows_BQ, carried_B1).repeat_interleave(A, dim=1)
                earlier = earlier * goes_on_BQ[:, None, :, None]
            pairs = (q @ k.mT) * seen.repeat_interleave(A, dim=-2).repeat_interleave(P, dim=-1)
            found.append(pairs @ v + earlier)
        if document_BK is not None:
            last_B1 = document_BK[:, end - 1 : end]
            state_BNRH = state_BNRH * torch.eq(carried_B1, last_B1)[..., None, None]
            v = v * torch.eq(document_BK[:, first:end], last_B1).repeat_interleave(P, dim=1)[:, None, :, None]
            carried_B1 = last_B1
        state_BNRH = state_BNRH + k.mT @ v
    return torch.cat(found, dim=2)


def _over_all(q_BNTR: Tensor, k_BNKR: Tensor, v_BNKH: Tensor, document_BK: Tensor | None) -> Tensor:
    """Sums over all rows of each token's document."""
    if document_BK is None:
        return q_BNTR @ (k_BNKR.mT @ v_BNKH)
    A, P = (x.shape[2] // document_BK.shape[1] for x in (q_BNTR, k_BNKR))
    summed = torch.zeros((), dtype=v_BNKH.dtype, device=v_BNKH.device)
    for document in document_BK.unique():
        here_BK = document_BK == document
        asks, seen = (here_BK.repeat_interleave(n, dim=1)[:, None, :, None] for n in (A, P))
        summed = summed + (q_BNTR @ (k_BNKR.mT @ (v_BNKH * seen))) * asks
    return summed


@torch.no_grad()
def _orthogonal(w_RH: Tensor, generator: torch.Generator) -> None:
    """Rows as long as normal ones, at right angles in groups of H."""
    H = w_RH.shape[1]
    for group_GH in w_RH.split(H):
        square_HH, other_HH = (torch.randn(H, H, generator=generator, dtype=torch.float64) for _ in range(2))
        rows_HH = torch.linalg.qr(square_HH).Q * other_HH.norm(dim=1, keepdim=True)
        group_GH.copy_(rows_HH[: len(group_GH)])
