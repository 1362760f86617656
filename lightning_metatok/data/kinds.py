"""Kinds of meta-tokens: with n of them the i-th meta-token of a row, from 0, has kind i mod n.

    n = 1    a b x c d x e f x          <|meta|>, one id and one embedding for all
    n = 2    a b x y c d x y e f        x = <|meta|>, y = <|meta_1|>: the k-th of each chunk is the same, as in KSA
    n = 4    x y z w a b c d e f        each of a prefix has an embedding of its own, as registers and Hymba's have

One rule says what all of these want: where each chunk has n of them, the k-th of each is of one kind; of a prefix of n
each is of its own; single ones take turns. It looks at nothing behind a meta-token, so that text which is being written
goes on with the kinds that it would have had in training.
Sources: KSA, arXiv 2604.24432; Darcet et al. 2024, arXiv 2309.16588 (registers); Hymba, arXiv 2411.13676.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_metatok.arrays import IntArray
from lightning_metatok.errors import UserError

KEY = "data.meta_kinds"
MOST = 4096
"""More than any system has."""

MetaIds = int | Sequence[int]
"""The id of `<|meta|>`, or the ids of all kinds, that of `<|meta|>` first."""


def ids_of(meta_id: MetaIds) -> tuple[int, ...]:
    """Return the ids of all kinds."""
    return (meta_id,) if isinstance(meta_id, int) else tuple(map(int, meta_id))


def next_ids(meta_id: MetaIds, before: int, n: int) -> list[int]:
    """Return the ids of the next `n` meta-tokens of a row that has `before` of them."""
    ids = ids_of(meta_id)
    return [ids[i % len(ids)] for i in range(before, before + n)]


def ids_at(meta_mask_BT: NDArray[np.bool_], meta_id: MetaIds) -> NDArray[np.int64]:
    """Return int64 [B, T]: at each meta-token its id; elsewhere any."""
    ids = np.asarray(ids_of(meta_id), dtype=np.int64)
    if len(ids) == 1:
        return np.full(meta_mask_BT.shape, ids[0])
    before_BT: NDArray[np.int64] = np.cumsum(meta_mask_BT, axis=1) - meta_mask_BT
    return ids[before_BT % len(ids)]


def ids_in_rows(is_meta: NDArray[np.bool_], offsets: IntArray, meta_id: MetaIds) -> NDArray[np.int64]:
    """Return the same for rows that stand one after the other: row i is from offsets[i] to offsets[i + 1]."""
    ids = np.asarray(ids_of(meta_id), dtype=np.int64)
    before = np.concatenate([[0], np.cumsum(is_meta)])
    at_start = np.repeat(before[offsets[:-1]], np.diff(offsets))
    return ids[(before[:-1] - at_start) % len(ids)]


def is_meta(tokens: Tensor, meta_id: MetaIds) -> Tensor:
    """Return bool, of the shape of `tokens`: which are meta-tokens, of whatever kind."""
    first, *further = ids_of(meta_id)
    found = tokens == first
    return found if not further else found | torch.isin(tokens, torch.tensor(further, device=tokens.device))


def check_kinds(kinds: int) -> None:
    """Raise `UserError` for a number of kinds that cannot be."""
    if not 1 <= kinds <= MOST:
        raise UserError(f"{KEY}={kinds}: expected 1 to {MOST}")


def check_used(kinds: int, most: int, where: str) -> None:
    """Raise `UserError` where kinds would never stand anywhere: a row has `most` meta-tokens, in `where`."""
    if kinds > max(1, most):
        there = f"up to {most}, the meta-tokens of {where}" if most else f"1, as {where} has no meta-tokens"
        raise UserError(f"{KEY}={kinds}: expected {there}")
