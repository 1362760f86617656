"""Linear probes: which label can be read off a vector by one linear map, judged on vectors it was not fitted to.

    accuracy    of a ridge classifier on standardised vectors, cross-validated; whole groups (prompts) are left out
    shuffled    the same with labels that were dealt out anew: what a probe of this size finds in nothing
    majority    of always saying the commonest label of the other folds

A label that can be read is there; the model need not use it (that is what interventions are for). Source: Alain &
Bengio 2016, arXiv 1610.01644; Hewitt & Liang 2019, arXiv 1909.03368 (control tasks).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lightning_metatok.arrays import IntArray


@dataclass(frozen=True)
class ReadOut:
    """Whether each vector's label was read, when its group was left out: bool [n] for the probe and both baselines."""

    right_n: NDArray[np.bool_]
    shuffled_n: NDArray[np.bool_]
    majority_n: NDArray[np.bool_]


def read_out(
    x_nD: NDArray[np.floating],
    label_n: IntArray,
    group_n: IntArray,
    *,
    folds: int = 5,
    alpha: float = 10.0,
    seed: int = 0,
) -> ReadOut:
    """Cross-validate a linear probe.

    Args:
        x_nD: vectors. label_n: what should be read. group_n: vectors of one group are in one fold.
        folds: at most as many as there are groups. alpha: ridge penalty. seed: deals out the shuffled labels.
    """
    assert len(x_nD) == len(label_n) == len(group_n)
    dealt_n = np.random.default_rng(seed).permutation(label_n)
    right, shuffled, majority = (np.zeros(len(label_n), dtype=bool) for _ in range(3))
    for fitted, left_out in GroupKFold(n_splits=folds).split(x_nD, label_n, group_n):
        for labels, found in ((label_n, right), (dealt_n, shuffled)):
            if len(np.unique(labels[fitted])) > 1:
                probe = make_pipeline(StandardScaler(), RidgeClassifier(alpha=alpha)).fit(x_nD[fitted], labels[fitted])
                found[left_out] = probe.predict(x_nD[left_out]) == labels[left_out]
            else:
                found[left_out] = labels[left_out] == labels[fitted][0]
        values, counts = np.unique(label_n[fitted], return_counts=True)
        majority[left_out] = label_n[left_out] == values[counts.argmax()]
    return ReadOut(right, shuffled, majority)
