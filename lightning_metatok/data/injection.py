"""Meta-tokens into blocks: a rule chooses M slots of each block for `<|meta|>`; source tokens fill the rest.

    source   a b c d e f g h i j            S = 10
    within   a b M c d e f M g h            T = 10: the block keeps its length, the source loses its end
    grow     a b M c d e f M g h i j        T = S + M = 12

M = floor(fraction * block length), exactly. The paper puts 10 % of meta-tokens at uniformly random positions;
its token count (98 B = 200 k steps of 480 blocks of 1,024) says `within`, one reviewer says `grow`: both are
here. Source: reference section 1.1 (counts and length: note (a)).

Injection is a pure function of (block, rule, seed, index): row b depends on `index[b]` and on no other row,
so any worker, rank or batch composition gives a sample the same meta-tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_metatok.data.counter import random_bits
from lightning_metatok.errors import UserError, nearest

Placement = Literal["random", "periodic", "punctuation", "fixed"]
Length = Literal["within", "grow"]

Ids = Sequence[int] | NDArray[np.integer] | Tensor
LAST_BIT = np.uint64(1 << 63)


@dataclass(frozen=True)
class Injected:
    """Blocks with meta-tokens: `tokens_BT` int64 [B, T]; `meta_mask_BT` bool [B, T], True at meta-tokens."""

    tokens_BT: Tensor
    meta_mask_BT: Tensor


def floor_of_fraction(fraction: float, length: int) -> int:
    """Return floor(fraction * length) for the decimal that `fraction` was written as: 29 for 0.29 * 100.

    In floating point 0.29 * 100 is 28.999999999999996.
    """
    return math.floor(Fraction(repr(float(fraction))) * length)


def inject(
    tokens_BS: Tensor,
    *,
    fraction: float | None = None,
    count: int | None = None,
    placement: Placement = "random",
    meta_id: int,
    seed: int,
    index: int | Ids,
    crop_to: int | None = None,
    positions: Ids | None = None,
    after_ids: Ids | None = None,
) -> Injected:
    """Return the blocks `tokens_BS` (int64 [B, S], on the CPU) with M meta-tokens in each row.

    Args:
        fraction: share of meta-tokens; M = floor(fraction * T) with `crop_to=T`, else floor(fraction * S).
        count: M itself. Give `fraction` or `count`, or neither with `positions`.
        placement: `random`: M slots out of T, uniform without replacement. `periodic`: evenly spaced slots,
            the first after half a period. `punctuation`: behind M uniformly chosen source tokens out of those
            in `after_ids`; where a row has fewer, the rest go behind uniformly chosen other source tokens, so
            that each row has exactly M. `fixed`: the slots `positions`.
        meta_id: id of `<|meta|>`, which the source must not contain.
        seed: chooses the stream of random numbers.
        index: global sample indices, B of them; an int i stands for i, i + 1, ..., i + B - 1.
        crop_to: T, to crop the source to T - M tokens; without it the block grows to S + M.
        positions: distinct slots of the result, for `fixed`.
        after_ids: token ids, for `punctuation`.
    """
    B, S = tokens_BS.shape
    assert (placement == "fixed") == (positions is not None), "positions belong to placement='fixed'"
    assert (placement == "punctuation") == (after_ids is not None), "after_ids belong to placement='punctuation'"
    if positions is not None:
        assert fraction is None, "positions already say how many"
        assert count in (None, len(positions)), "count differs from the number of positions"
        M = len(positions)
    elif count is not None:
        assert fraction is None, "give fraction or count, not both"
        M = count
    else:
        assert fraction is not None, "give fraction or count"
        M = floor_of_fraction(fraction, S if crop_to is None else crop_to)
    T = S + M if crop_to is None else crop_to
    assert 0 <= M <= T, f"{M} meta-tokens do not fit into {T} slots"
    assert S >= T - M, f"{S} source tokens cannot fill {T} slots less {M}"
    index_B = np.arange(index, index + B) if isinstance(index, int) else np.asarray(index)
    assert index_B.shape == (B,), f"{B} rows need {B} indices, not {index_B.shape}"

    source_BS = tokens_BS[:, : T - M].numpy()
    assert not (source_BS == meta_id).any(), "the source already contains the meta-token"
    if placement == "random":
        meta_mask_BT = smallest(random_bits(seed, index_B[:, None], np.arange(T)), M)
    elif placement == "periodic":
        slots_M = (2 * np.arange(M) + 1) * T // (2 * max(M, 1))
        meta_mask_BT = slots_to_mask(slots_M, B, T)
    elif placement == "punctuation":
        keys_BS = random_bits(seed, index_B[:, None], np.arange(T - M)) >> np.uint64(1)
        keys_BS = keys_BS | np.where(np.isin(source_BS, np.asarray(after_ids)), np.uint64(0), LAST_BIT)
        meta_mask_BT = behind(smallest(keys_BS, M), T)
    else:
        meta_mask_BT = slots_to_mask(np.asarray(positions, dtype=np.int64), B, T)

    injected_BT = np.full((B, T), meta_id, dtype=np.int64)
    injected_BT[~meta_mask_BT] = source_BS.reshape(-1)
    return Injected(torch.from_numpy(injected_BT), torch.from_numpy(meta_mask_BT))


def remove_meta(tokens_BT: Tensor, meta_mask_BT: Tensor) -> Tensor:
    """Return the source tokens [B, S] of blocks whose rows all hold equally many meta-tokens (asserted)."""
    kept_B = (~meta_mask_BT).sum(dim=1)
    assert bool((kept_B == kept_B[:1]).all()), "rows with different numbers of meta-tokens make no tensor"
    return tokens_BT[~meta_mask_BT].view(tokens_BT.shape[0], -1)


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


@dataclass(frozen=True)
class InjectionRule:
    """How blocks get their meta-tokens; checked when it is made.

    Attributes:
        fraction: share of meta-tokens in a block, 0 to 0.5 (option `data.meta_fraction`); unused for `fixed`.
        placement: where they go, see `inject` (option `data.meta_placement`).
        length: `within` keeps the block length and crops the source; `grow` lengthens the block by M
            (option `data.meta_length`).
        positions: slots of the finished block, for placement `fixed` only (option `data.meta_positions`).

    Raises:
        UserError: a value outside these bounds.
    """

    fraction: float = 0.1
    placement: Placement = "random"
    length: Length = "within"
    positions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 0.5:
            raise UserError(f"data.meta_fraction={self.fraction}: expected a share between 0 and 0.5")
        for key, value, known in (
            ("data.meta_placement", self.placement, get_args(Placement)),
            ("data.meta_length", self.length, get_args(Length)),
        ):
            if value not in known:
                raise UserError(f"{key}={value!r}: expected one of {', '.join(known)}{nearest(value, known)}")
        if bool(self.positions) != (self.placement == "fixed"):
            raise UserError(
                f"data.meta_positions={list(self.positions)}: expected slots with data.meta_placement=fixed, "
                f"and none with another placement (it is {self.placement})"
            )
        if len(set(self.positions)) != len(self.positions) or any(slot < 0 for slot in self.positions):
            raise UserError(f"data.meta_positions={list(self.positions)}: expected distinct slots from 0 on")

    def n_meta(self, block_length: int) -> int:
        """Return M for blocks of the nominal length `block_length`."""
        if self.placement == "fixed":
            return len(self.positions)
        return floor_of_fraction(self.fraction, block_length)

    def source_length(self, block_length: int) -> int:
        """Return S, the source tokens in a block: `block_length`, less M for `within`."""
        return block_length - self.n_meta(block_length) if self.length == "within" else block_length

    def total_length(self, block_length: int) -> int:
        """Return T, the positions that a model sees: `block_length`, plus M for `grow`."""
        return self.source_length(block_length) + self.n_meta(block_length)

    def apply(
        self,
        tokens_BS: Tensor,
        *,
        block_length: int,
        meta_id: int,
        seed: int,
        index: int | Ids,
        after_ids: Ids | None = None,
    ) -> Injected:
        """Return `tokens_BS`, S = `source_length(block_length)` or more tokens a row, injected by this rule.

        `after_ids` is read for placement `punctuation` only and may always be given.

        Raises:
            UserError: a slot of `positions` lies outside the block.
        """
        T = self.total_length(block_length)
        fixed = self.placement == "fixed"
        if fixed and max(self.positions) >= T:
            raise UserError(f"data.meta_positions: slot {max(self.positions)} lies outside a block of {T} positions")
        return inject(
            tokens_BS,
            count=self.n_meta(block_length),
            placement=self.placement,
            meta_id=meta_id,
            seed=seed,
            index=index,
            crop_to=T,
            positions=self.positions if fixed else None,
            after_ids=after_ids if self.placement == "punctuation" else None,
        )
