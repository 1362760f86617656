"""Landmark attention: earlier blocks of text are reached through the extra token that ends them, their landmark.

    z_i(b) = s_ij of the landmark j of block b        the weights of `grouped`

top    of the earlier blocks, only so many with the best landmarks are read, query by query and head by head, and share
       the softmax: what the authors do in generation. Not given: all
exact  a block is scored by what it holds, log sum_{k in b} exp s_ik, in place of its landmark: with all blocks read
       that is plain attention over the text, with few its best approximation by blocks

Landmarks have no weight themselves, and that of the own block is not looked at, even by itself. No weights are added.
Mohtashami and Jaggi, NeurIPS 2023, arXiv 2305.16300: a landmark behind every 50 tokens. In the authors' code rows that
see blocks without text sum to less than 1.
"""

from typing import Annotated

from torch import Tensor

from lightning_metatok.model.mechanisms.grouped import Chunks, GroupedAttention
from lightning_metatok.options import at_least


class LandmarkAttention(GroupedAttention):
    """Scores of earlier blocks are those of their landmarks, shared out among their text."""

    def __init__(self, *, top: Annotated[int | None, at_least(1)] = None, exact: bool = False) -> None:
        self.top, self.exact = top, exact

    def says(self) -> list[str]:
        return [*(["exact"] if self.exact else []), *([] if self.top is None else [f"top {self.top}"])]

    def weight(self, chunks: Chunks) -> Tensor:
        return chunks.total_BNQC if self.exact else of_landmarks(chunks)


def of_landmarks(chunks: Chunks) -> Tensor:
    """Return the scores of the extra tokens that end chunks, [B, N, Q, C]; 0 where there is none."""
    return chunks.sum(chunks.scores_BNQK.masked_fill(~chunks.extra_B11K, 0))
