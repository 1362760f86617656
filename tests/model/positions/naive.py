"""Positions written out with loops, in float64: one matrix for every position, one product for every pair of places."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_metatok.model.positions import PositionEncoding, Rows

Turning = Callable[[int, int, int], tuple[Tensor, Tensor]]
"""(position, positions that the query sees, head) -> the matrices [H, H] that q and k are multiplied by."""

IDS = torch.tensor([[0, 3, 4, 90, 7, 7, 1], [5, 6, 70, 0, 1, 2, 0]])
"""Not in order, with gaps, one twice, and documents that start again."""
KEEP = torch.tensor([[True, False, True, True, False, True, True], [True, True, False, True, True, False, True]])


def rotation(angles: list[float], size: int, *, half: bool, scale: float = 1.0) -> Tensor:
    """The matrix that turns pair p of the first 2 * len(angles) of `size` dimensions by angles[p]."""
    matrix = torch.eye(size, dtype=torch.float64)
    for p, angle in enumerate(angles):
        first, second = (p, p + len(angles)) if half else (2 * p, 2 * p + 1)
        matrix[first, first] = matrix[second, second] = scale * math.cos(angle)
        matrix[first, second], matrix[second, first] = -scale * math.sin(angle), scale * math.sin(angle)
    return matrix


def naive_scores(turning: Turning, q: Tensor, k: Tensor, ids: Tensor, keep: Tensor | None) -> Tensor:
    """Scores [B, N, T, T], entry by entry."""
    B, N, T, H = q.shape
    identity = torch.eye(H, dtype=torch.float64)
    rows = []
    for b in range(B):
        for n in range(N):
            for i in range(T):
                for j in range(T):
                    length = int(ids[b, i]) + 1
                    of_q, of_k = turning(int(ids[b, i]), length, n)[0], turning(int(ids[b, j]), length, n)[1]
                    if keep is not None:
                        of_q, of_k = of_q if keep[b, i] else identity, of_k if keep[b, j] else identity
                    rows.append((of_q @ q[b, n, i]) @ (of_k @ k[b, n, j]) / math.sqrt(H))
    return torch.stack(rows).view(B, N, T, T)


def scores_of(encoding: PositionEncoding, q: Tensor, k: Tensor, ids: Tensor, keep: Tensor | None) -> Tensor:
    """The scores that the package computes."""
    q, k = encoding.rotate(q, k, ids, keep)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return encoding.score(scores, ids, keep, rows=Rows(0, q, k))


def assert_same_scores(encoding: PositionEncoding, turning: Turning, *, n_heads: int, head_dim: int) -> None:
    """Scores and gradients, with all positions and with some dropped. Angles are float32: of 90 radians, 4e-6."""
    generator = torch.Generator().manual_seed(0)
    for keep in (None, KEEP):
        q, k, weight = (
            torch.randn(*IDS.shape[:1], n_heads, IDS.shape[1], size, generator=generator, dtype=torch.float64)
            for size in (head_dim, head_dim, IDS.shape[1])
        )
        q.requires_grad_()
        k.requires_grad_()
        ours, theirs = scores_of(encoding, q, k, IDS, keep), naive_scores(turning, q, k, IDS, keep)
        torch.testing.assert_close(ours.double(), theirs, atol=3e-5, rtol=1e-5)
        for mine, other in zip(
            torch.autograd.grad((ours * weight).sum(), (q, k)),
            torch.autograd.grad((theirs * weight).sum(), (q, k)),
            strict=True,
        ):
            torch.testing.assert_close(mine, other, atol=3e-5, rtol=1e-5)
