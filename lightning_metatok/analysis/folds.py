"""Folds that take turns, so that every example is measured once by what has not seen it.

part      0         1         2         3         4
fold 0    measured  stops by  trained   trained   trained
fold 1    trained   measured  stops by  trained   trained
...
fold 4    stops by  trained   trained   trained   measured
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """Rows of the examples for each fold, [F, n]. Folds may differ by a row: the first is then repeated, not real."""

    rows_FN: Tensor
    real_FN: Tensor

    def of(self, fold: int) -> NDArray[np.int64]:
        """The real rows of one fold."""
        rows: NDArray[np.int64] = self.rows_FN[fold][self.real_FN[fold]].numpy()
        return rows

    def back(self, values_FBN: Tensor, n: int) -> NDArray[np.float64]:
        """Values at each fold's rows, [F, B, n], at their places among all examples, [B, N]."""
        whole_BN = np.full((values_FBN.shape[1], n), np.nan)
        for values_BN, rows_N, real_N in zip(values_FBN, self.rows_FN, self.real_FN, strict=True):
            whole_BN[:, rows_N[real_N].numpy()] = values_BN[:, real_N].double().numpy()
        return whole_BN


def shares(n: int, folds: int, generator: torch.Generator) -> tuple[Share, Share, Share]:
    """Return what folds are trained on, stop by and are measured on, of `n` examples in random parts."""
    assert folds >= 3, "a part each to train on, to stop by and to hold out"
    assert n >= 2 * folds, "two examples a part at least"
    part_N = torch.randperm(n, generator=generator) % folds
    found = []
    for wanted in ("train_on", "stop_by", "hold_out"):
        rows = []
        for fold in range(folds):
            held_N, stop_N = part_N == fold, part_N == (fold + 1) % folds
            taken_N = {"train_on": ~(held_N | stop_N), "stop_by": stop_N, "hold_out": held_N}[wanted]
            rows.append(taken_N.nonzero()[:, 0])
        longest = max(len(r) for r in rows)
        whole_FN = torch.stack([torch.cat([r, r[: longest - len(r)]]) for r in rows])
        real_FN = torch.stack([torch.arange(longest) < len(r) for r in rows])
        found.append(Share(whole_FN, real_FN))
    return found[0], found[1], found[2]
