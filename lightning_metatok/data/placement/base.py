"""The one interface of all placements: where extra tokens stand in a block of text, and which positions they have.

    text        a b c d e f            S = 6 source tokens
    mask        . . x . . x . .        T = 8: `mask`
    positions   0 1 2 3 4 5 6 7        `position_ids`: an extra token has a position of its own, as any other token

A placement is a pure function of (block, seed, index): row b depends on `index_B[b]` and on no other row, so that any
worker, rank or composition of a batch puts the same extra tokens into a sample.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_metatok.data.counter import random_bits


@dataclass(frozen=True)
class Sources:
    """The blocks that extra tokens are put into.

    Attributes:
        source_BS: int64 [B, S], their source tokens. T: positions of a finished block, S and the extra tokens.
        seed: chooses the stream of random numbers. index_B: global sample indices.
        after_ids: ids of punctuation, of the tokenizer.
    """

    source_BS: NDArray[np.int64]
    T: int
    seed: int
    index_B: NDArray[np.integer]
    after_ids: NDArray[np.integer]

    @property
    def S(self) -> int:
        """Source tokens of a block."""
        return self.source_BS.shape[1]

    @property
    def M(self) -> int:
        """Extra tokens of a block."""
        return self.T - self.S

    def bits(self, n: int) -> NDArray[np.uint64]:
        """Random bits [B, n], uniform and independent."""
        return random_bits(self.seed, self.index_B[:, None], np.arange(n))


@dataclass(frozen=True)
class Written:
    """A text that grows by one source token at a time, the prompt among it.

    Attributes:
        n_source, n_extra: how many tokens there are so far. last_id: of the last source token.
        share: of extra tokens among all, as `data.meta_fraction` says. draw: a number in [0, 1), another one each time.
        after_ids: as in `Sources`.
    """

    n_source: int
    n_extra: int
    last_id: int
    share: float
    draw: float
    after_ids: frozenset[int]

    @property
    def a_source_token(self) -> float:
        """Extra tokens a source token, where they are `share` of all."""
        return self.share / (1 - self.share)


class Placement:
    """Where extra tokens stand; a rule states its options as keyword-only arguments (`lightning_metatok.options`)."""

    by_share: ClassVar[bool] = True
    """Whether `data.meta_fraction` says how many there are, in a block of any length."""

    none_at_0: ClassVar[bool] = True
    """Whether `data.meta_fraction=0` means that there are none, also where the rule says itself how many."""

    any_length: ClassVar[bool] = True
    """Whether it works in a text of any length, such as a prompt."""

    def count(self, share: int, length: int, *, grows: bool) -> int:
        """Return M, the extra tokens of a block.

        Args:
            share: as many as `data.meta_fraction` asks for.
            length: of the block: of its source where it `grows` by M, else of the finished block.
        """
        return share

    def check(self, T: int) -> None:
        """Raise `UserError` where the rule cannot work in blocks of T positions."""

    def mask(self, blocks: Sources) -> NDArray[np.bool_]:
        """Return bool [B, T], True at the M places of each row where an extra token stands."""
        raise NotImplementedError

    def comes_next(self, text: Written) -> int:
        """Return how many extra tokens stand behind the last token of a text that is being written; here none."""
        return 0

    def position_ids(self, document_ids_BT: Tensor, meta_mask_BT: Tensor) -> Tensor:
        """Return int64 [B, T]: 0, 1, 2, ... in each document; here extra tokens are counted as all others are."""
        return positions_within(document_ids_BT)


def positions_within(document_ids_BT: Tensor) -> Tensor:
    """Return int64 [B, T]: 0, 1, 2, ... in each document."""
    slots_T = torch.arange(document_ids_BT.shape[1])
    starts_BT = torch.zeros_like(document_ids_BT)
    starts_BT[:, 1:] = torch.where(document_ids_BT[:, 1:] != document_ids_BT[:, :-1], slots_T[1:], 0)
    return slots_T - starts_BT.cummax(dim=1).values


def smallest(keys_BK: NDArray[np.uint64], M: int) -> NDArray[np.bool_]:
    """Return the mask [B, K] of the M smallest keys of each row: of random keys, a uniform M-subset."""
    mask_BK = np.zeros(keys_BK.shape, dtype=np.bool_)
    assert keys_BK.shape[1] >= M, f"cannot choose {M} of {keys_BK.shape[1]} places"
    if M > 0:
        np.put_along_axis(mask_BK, np.argpartition(keys_BK, M - 1, axis=1)[:, :M], True, axis=1)
    return mask_BK


def slots_to_mask(slots_M: NDArray[np.int64], B: int, T: int) -> NDArray[np.bool_]:
    """Return the mask [B, T] that is True at the distinct slots `slots_M` of each row."""
    assert np.unique(slots_M).size == slots_M.size, "a slot is named twice"
    assert slots_M.size == 0 or (slots_M.min() >= 0 and slots_M.max() < T), f"slots must lie in [0, {T})"
    mask_BT = np.zeros((B, T), dtype=np.bool_)
    mask_BT[:, slots_M] = True
    return mask_BT


def behind(chosen_BS: NDArray[np.bool_], T: int) -> NDArray[np.bool_]:
    """Return the mask [B, T] of meta slots that puts one meta-token right behind each chosen source token."""
    mask_BT = np.zeros((len(chosen_BS), T), dtype=np.bool_)
    rows, sources = np.nonzero(chosen_BS)
    inserted_BS = np.cumsum(chosen_BS, axis=1)  # from the start of the row to right behind this source token
    mask_BT[rows, sources + inserted_BS[rows, sources]] = True
    return mask_BT
