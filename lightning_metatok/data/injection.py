"""Meta-tokens into blocks: a rule chooses M slots of each block for `<|meta|>`; source tokens fill the rest.

    source   a b c d e f g h i j            S = 10
    within   a b M c d e f M g h            T = 10: the block keeps its length, the source loses its end
    grow     a b M c d e f M g h i j        T = S + M = 12

M = floor(fraction * block length), exactly. With `grow` a block holds the same source text whatever M is, so that arms
with different meta-tokens, or none, read and are scored on the same text: that is what comparisons need, and the
default. With `within` an arm with meta-tokens reads less text a block, at other places. The paper puts 10 % of
meta-tokens at uniformly random positions; its token count (98 B = 200 k steps of 480 blocks of 1,024) says `within`,
one reviewer says `grow`. Source: arXiv 2509.16278, pre-training and its
appendices B and C (counts, length). Which slots is the placement's business
(`lightning_metatok.data.placement`).

Injection is a pure function of (block, rule, seed, index): row b depends on `index[b]` and on no other row,
so any worker, rank or batch composition gives a sample the same meta-tokens.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache, cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_metatok.data import placement as placements
from lightning_metatok.data.kinds import MetaIds, ids_at, ids_of
from lightning_metatok.data.placement import Placement, Sources
from lightning_metatok.errors import UserError, nearest

Length = Literal["within", "grow"]

Ids = Sequence[int] | NDArray[np.integer] | Tensor


@dataclass(frozen=True)
class Injected:
    """Blocks with meta-tokens: `tokens_BT` int64 [B, T]; `meta_mask_BT` bool [B, T], True at meta-tokens."""

    tokens_BT: Tensor
    meta_mask_BT: Tensor


@cache
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
    placement: str | Placement = "random",
    meta_id: MetaIds,
    seed: int,
    index: int | Ids,
    crop_to: int | None = None,
    after_ids: Ids = (),
) -> Injected:
    """Return the blocks `tokens_BS` (int64 [B, S], on the CPU) with M meta-tokens in each row.

    Args:
        fraction: share of meta-tokens; M = floor(fraction * T) with `crop_to=T`, else floor(fraction * S).
        count: M itself. Give `fraction` or `count`, or neither with a placement that says how many.
        placement: where they go: a rule, or the name of one that needs no options.
        meta_id: id of `<|meta|>`, or of all kinds (`data.kinds`), which the source must not contain.
        seed: chooses the stream of random numbers.
        index: global sample indices, B of them; an int i stands for i, i + 1, ..., i + B - 1.
        crop_to: T, to crop the source to T - M tokens; without it the block grows to S + M.
        after_ids: ids of punctuation, for placements that ask for it.
    """
    B, S = tokens_BS.shape
    rule = placements.build(placement) if isinstance(placement, str) else placement
    assert fraction is None or count is None, "give fraction or count, not both"
    assert not rule.by_share or fraction is not None or count is not None, "give fraction or count"
    asked = count if fraction is None else floor_of_fraction(fraction, S if crop_to is None else crop_to)
    length, grows = (S, True) if crop_to is None else (crop_to, False)
    # Who says how many there are has said how long the block is, too.
    M = count if count is not None else rule.count(asked or 0, length, grows=grows)
    T = S + M if crop_to is None else crop_to
    assert 0 <= M <= T, f"{M} meta-tokens do not fit into {T} slots"
    assert S >= T - M, f"{S} source tokens cannot fill {T} slots less {M}"
    index_B = np.arange(index, index + B) if isinstance(index, int) else np.asarray(index)
    assert index_B.shape == (B,), f"{B} rows need {B} indices, not {index_B.shape}"

    source_BS = tokens_BS[:, : T - M].numpy()
    assert not any((source_BS == id).any() for id in ids_of(meta_id)), "the source already contains the meta-token"
    meta_mask_BT = rule.mask(Sources(source_BS, T, seed, index_B, np.asarray(after_ids, dtype=np.int64)))
    assert meta_mask_BT.shape == (B, T), f"{placement}: a mask of {meta_mask_BT.shape}, not {(B, T)}"
    assert (meta_mask_BT.sum(axis=1) == M).all(), f"{placement}: not {M} meta-tokens in each row"

    injected_BT = ids_at(meta_mask_BT, meta_id)
    injected_BT[~meta_mask_BT] = source_BS.reshape(-1)
    return Injected(torch.from_numpy(injected_BT), torch.from_numpy(meta_mask_BT))


def remove_meta(tokens_BT: Tensor, meta_mask_BT: Tensor) -> Tensor:
    """Return the source tokens [B, S] of blocks whose rows all hold equally many meta-tokens (asserted)."""
    kept_B = (~meta_mask_BT).sum(dim=1)
    assert bool((kept_B == kept_B[:1]).all()), "rows with different numbers of meta-tokens make no tensor"
    return tokens_BT[~meta_mask_BT].view(tokens_BT.shape[0], -1)


@dataclass(frozen=True)
class InjectionRule:
    """How blocks get their meta-tokens; checked when it is made.

    Attributes:
        fraction: share of meta-tokens in a block, 0 to 0.5 (option `data.meta_fraction`); unused for `fixed`.
        placement: where they go, a name in `placement.PLACEMENTS` (option `data.meta_placement`).
        length: `grow` lengthens the block by M, `within` keeps its length and crops the source
            (option `data.meta_length`).
        options: of the placement (option `data.meta_placement_options`).

    Raises:
        UserError: a value outside these bounds.
    """

    fraction: float = 0.1
    placement: str = "random"
    length: Length = "grow"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 0.5:
            raise UserError(f"data.meta_fraction={self.fraction}: expected a share between 0 and 0.5")
        known = get_args(Length)
        if self.length not in known:
            raise UserError(
                f"data.meta_length={self.length!r}: expected one of {', '.join(known)}{nearest(self.length, known)}"
            )
        assert self.where is not None, "built, so that a mistake in its options comes to light"

    @cached_property
    def where(self) -> Placement:
        """The placement with its options."""
        return placements.build(self.placement, self.options)

    def n_meta(self, block_length: int) -> int:
        """Return M for blocks of the nominal length `block_length`; with a `fraction` of 0 there are none."""
        if self.fraction == 0 and self.where.none_at_0:
            return 0
        share = floor_of_fraction(self.fraction, block_length)
        return self.where.count(share, block_length, grows=self.length == "grow")

    def source_length(self, block_length: int) -> int:
        """Return S, the source tokens in a block: `block_length`, less M for `within`."""
        return block_length - self.n_meta(block_length) if self.length == "within" else block_length

    def total_length(self, block_length: int) -> int:
        """Return T, the positions that a model sees: `block_length`, plus M for `grow`."""
        return self.source_length(block_length) + self.n_meta(block_length)

    def in_prompt(self, tokens_1T: Tensor, *, meta_id: MetaIds, seed: int, index: int, after_ids: Ids = ()) -> Injected:
        """Return a prompt, which may be shorter than any block, with the meta-tokens it gets; it grows by them.

        A placement of given slots puts none: a prompt has no such slots.
        """
        T = tokens_1T.shape[1]
        count = replace(self, length="grow").n_meta(T) if self.where.any_length else 0
        where = self.where if count else "random"
        return inject(
            tokens_1T, count=count, placement=where, meta_id=meta_id, seed=seed, index=index, after_ids=after_ids
        )

    def apply(
        self,
        tokens_BS: Tensor,
        *,
        block_length: int,
        meta_id: MetaIds,
        seed: int,
        index: int | Ids,
        after_ids: Ids = (),
    ) -> Injected:
        """Return `tokens_BS`, S = `source_length(block_length)` or more tokens a row, injected by this rule.

        Raises:
            UserError: the placement cannot work in blocks of that length.
        """
        T = self.total_length(block_length)
        self.where.check(T)
        return inject(
            tokens_BS,
            count=self.n_meta(block_length),
            placement=self.where,
            meta_id=meta_id,
            seed=seed,
            index=index,
            crop_to=T,
            after_ids=after_ids,
        )
