"""How sure a measured share is, and whether two conditions on the SAME items differ.

    one share          Wilson's interval         81 of 263 right: 0.308 [0.255, 0.366]
    two, paired        bootstrap of the mean difference, item by item
                       McNemar's exact test: only items count that one condition gets right and the other wrong
    many tests         Holm's correction         p times the number of tests that are left, from the smallest p on

Sources: Wilson 1927, "Probable inference, the law of succession, and statistical inference"; Efron 1987, "Better
bootstrap confidence intervals"; McNemar 1947, "Note on the sampling error of the difference between correlated
proportions"; Holm 1979, "A simple sequentially rejective multiple test procedure". SciPy computes the first three.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

SEED = 20250918
"""Of the bootstrap's resamples: the same data give the same interval."""


class Difference(NamedTuple):
    """Mean of a - b over items, and its confidence interval."""

    mean: float
    low: float
    high: float


def wilson_interval(
    n_right: ArrayLike, n: ArrayLike, confidence: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lower and the upper end of Wilson's interval for shares `n_right` / `n`.

    Args:
        n_right: how many of the items are right, integers.
        n: how many items there are. Without any, nothing is known: the interval is 0 to 1.
        confidence: how often the interval holds the true share.

    Returns:
        Two arrays of the arguments' broadcast shape (of no dimension for two numbers).
    """
    n_right, n = np.broadcast_arrays(np.asarray(n_right, dtype=np.int64), np.asarray(n, dtype=np.int64))
    assert ((n_right >= 0) & (n_right <= n)).all(), "some of n"
    from scipy import stats  # most of a second, which a verb's --help does not need

    low, high = np.zeros(n.shape), np.ones(n.shape)
    for place in np.ndindex(n.shape):
        if n[place] > 0:
            found = stats.binomtest(int(n_right[place]), int(n[place])).proportion_ci(confidence, method="wilson")
            low[place], high[place] = found
    return low, high


def paired_bootstrap(
    a_n: ArrayLike,
    b_n: ArrayLike,
    confidence: float = 0.95,
    n_resamples: int = 9999,
    seed: int = SEED,
) -> Difference:
    """Return the mean of `a_n - b_n` with its bias-corrected and accelerated bootstrap interval.

    Items are drawn, and with an item both its values: what makes an item hard for both conditions cancels out. Where
    no item differs from another in a - b, resamples do not either, and the interval is that one number; that is no
    proof of certainty with few items.

    Args:
        a_n, b_n: a number an item, booleans too; the same items in the same order, one at least.
    """
    difference_n = np.asarray(a_n, dtype=np.float64) - np.asarray(b_n, dtype=np.float64)
    assert difference_n.ndim == 1, "two lists of the same items"
    assert len(difference_n) > 0, "one item at least"
    mean = float(difference_n.mean())
    if (difference_n == difference_n[0]).all():
        return Difference(mean, mean, mean)
    from scipy import stats

    found = stats.bootstrap(
        (difference_n,),
        np.mean,
        confidence_level=confidence,
        n_resamples=n_resamples,
        batch=max(1, 2_000_000 // len(difference_n)),  # bounds memory
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Difference(mean, float(found.low), float(found.high))


def mcnemar(a_n: ArrayLike, b_n: ArrayLike) -> float:
    """Return the two-sided exact p of McNemar's test that `a_n` and `b_n` are right equally often.

    Args:
        a_n, b_n: bool, right or wrong, the same items in the same order.

    Returns:
        The chance of a split at least as uneven among the items that differ, each being a fair coin; 1 if none differs.
    """
    a_n, b_n = np.asarray(a_n, dtype=bool), np.asarray(b_n, dtype=bool)
    assert a_n.shape == b_n.shape, "two lists of the same items"
    only_a, only_b = int((a_n & ~b_n).sum()), int((b_n & ~a_n).sum())
    if only_a + only_b == 0:
        return 1.0
    from scipy import stats

    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def holm(p_n: ArrayLike) -> NDArray[np.float64]:
    """Return the p of every test, corrected for there being many: below alpha, it holds with all the others.

    Args:
        p_n: a p a test, in any order; NaN where there was nothing to test, which counts as no test.
    """
    p_n = np.asarray(p_n, dtype=np.float64)
    order = np.argsort(p_n)[: int(np.isfinite(p_n).sum())]  # NaN is sorted last
    corrected_n = np.full(p_n.shape, np.nan)
    factors = np.arange(len(order), 0, -1)
    corrected_n[order] = np.minimum(np.maximum.accumulate(factors * p_n[order]), 1.0)
    return corrected_n


def resampled_means(values_NK: ArrayLike, n_resamples: int = 2000, seed: int = SEED) -> NDArray[np.float64]:
    """Return the means of `values_NK` over bootstrap resamples of its N items, [n_resamples, K].

    The K columns are drawn together: what belongs to one item stays together, and one draw serves many numbers, where
    `paired_bootstrap` would be slow.
    """
    values_NK = np.asarray(values_NK, dtype=np.float64)
    N = len(values_NK)
    counts_CN = np.random.default_rng(seed).multinomial(N, np.full(N, 1 / N), size=n_resamples)
    means_CK: NDArray[np.float64] = counts_CN @ values_NK / N
    return means_CK
