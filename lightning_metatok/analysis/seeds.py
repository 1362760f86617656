"""How sure a difference between two ways of training is, with seeds as what is drawn.

A run is one draw: its prompts say how well THIS model does, not how well such models do. So intervals and tests take
one number a seed, and fewer than `FEWEST` seeds have neither.

    what differs                          interval and p
    losses, seed by seed                  Student's t of the differences: exact where they are normal
    shares of right answers, seed by seed inverted sign-flip test: exact where differences are symmetric, whatever their
                                          shape, two peaks (solved or not) and ties among them
    nothing is paired                     Welch's t

The sign-flip test counts, among all 2^n ways to turn the signs of the n differences, those with a mean at least as
large (ties and the differences as they are count half: mid-p). Inverted it needs no search: a subset's mean m is
the shift at which turning that subset's signs makes no difference, so the interval's ends are quantiles of the 2^n - 1
means of subsets ("typical values": Hartigan 1969, "Using subsample values as typical values"). With five seeds the
interval is the smallest and the largest difference, and holds in 1 - 2/32 = 93.75 %.

How often each really covers the truth is simulated in tests/analysis/test_seeds.py and shown in docs/method.md.
"""

import math
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import brentq

FEWEST = 5
"""Seeds from which on an interval is given: a sign-flip interval of fewer holds in 87.5 % at most."""
EXACT = 12
"""Seeds up to which all 2^n sign patterns are counted; beyond, `PATTERNS` drawn ones."""
PATTERNS = 9999
SEED = 20250918
ROUNDING = 1e-9
"""Numbers that agree to so many parts of them are the same."""

Floats = NDArray[np.float64]


class SeedInterval(NamedTuple):
    """Mean over seeds, its confidence interval, and the two-sided p of its being 0."""

    mean: float
    low: float
    high: float
    p: float


def paired_t(difference_n: ArrayLike, confidence: float = 0.95) -> SeedInterval:
    """Return Student's interval of the mean difference.

    Args:
        difference_n: a - b, one number a seed, `FEWEST` at least. Without spread the interval is their mean, p is NaN.
    """
    values_n = _checked(difference_n)
    mean = float(values_n.mean())
    if not has_spread(values_n):
        return SeedInterval(mean, mean, mean, math.nan)
    found = stats.ttest_1samp(values_n, 0)
    low, high = found.confidence_interval(confidence)
    return SeedInterval(mean, float(low), float(high), float(found.pvalue))


def sign_flip(difference_n: ArrayLike, confidence: float = 0.95) -> SeedInterval:
    """Return the interval of the mean difference by the inverted sign-flip test.

    Args:
        difference_n: a - b, one number a seed, `FEWEST` at least.
    """
    values_n = _checked(difference_n)
    low, high = sign_flip_ends(values_n, confidence)
    means_k = _subset_means(values_n)
    above = ((means_k < 0).sum() + 0.5 * ((means_k == 0).sum() + 1)) / (len(means_k) + 1)
    return SeedInterval(float(values_n.mean()), float(low), float(high), float(min(1, 2 * min(above, 1 - above))))


def sign_flip_ends(differences: ArrayLike, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Return the ends of `sign_flip`'s interval for many samples at once: differences [..., n] give two of [...]."""
    means = _subset_means(np.asarray(differences, dtype=np.float64))
    K = means.shape[-1]
    # Below the k-th smallest mean lies a shift that k - 1 patterns and half of the one as it is speak for.
    k = max(1, math.ceil((1 - confidence) / 2 * (K + 1) - 0.5))
    ordered = np.partition(means, (k - 1, K - k), axis=-1)
    return ordered[..., k - 1], ordered[..., K - k]


def welch(a_n: ArrayLike, b_n: ArrayLike, confidence: float = 0.95) -> SeedInterval:
    """Return the interval of mean(a) - mean(b) where nothing pairs them; `FEWEST` seeds each at least."""
    a_n, b_n = _checked(a_n), _checked(b_n)
    mean = float(a_n.mean() - b_n.mean())
    if not (has_spread(a_n) or has_spread(b_n)):
        return SeedInterval(mean, mean, mean, math.nan)
    found = stats.ttest_ind(a_n, b_n, equal_var=False)
    low, high = found.confidence_interval(confidence)
    return SeedInterval(mean, float(low), float(high), float(found.pvalue))


def power(
    difference: float,
    spread: float,
    n: int,
    confidence: float = 0.95,
) -> float:
    """Return how often the paired t test of n seeds finds a true `difference`.

    Args:
        difference: of the means. spread: standard deviation of the differences from seed to seed.
    """
    if n < 2:
        return 0.0
    if spread == 0:
        return 1.0 if difference else 0.0
    shift = abs(difference) / spread * math.sqrt(n)
    critical = stats.t.ppf((1 + confidence) / 2, n - 1)
    return float(stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift))


def detectable(
    spread: float,
    n: int,
    wanted: float = 0.8,
    confidence: float = 0.95,
) -> float:
    """Return the smallest true difference that n seeds find with power `wanted`; infinite below two seeds."""
    if n < 2:
        return math.inf
    if spread == 0:
        return 0.0
    low, high = 0.0, spread
    while power(high, spread, n, confidence) < wanted:
        high *= 2
    return float(brentq(lambda x: power(x, spread, n, confidence) - wanted, low, high, xtol=1e-6 * spread))


def has_spread(values_n: ArrayLike) -> bool:
    """Whether numbers differ by more than the rounding of a subtraction."""
    values_n = np.asarray(values_n, dtype=np.float64)
    return bool(np.ptp(values_n) > ROUNDING * np.abs(values_n).max())


def _checked(values_n: ArrayLike) -> Floats:
    values_n = np.asarray(values_n, dtype=np.float64)
    assert values_n.ndim == 1, "one number a seed"
    assert len(values_n) >= FEWEST, f"fewer than {FEWEST} seeds have no interval"
    return values_n


def _subset_means(values: Floats) -> Floats:
    """Means of subsets of the last axis, [..., K]: of all that hold one at least, or of drawn ones."""
    n = values.shape[-1]
    if n <= EXACT:
        subsets_kn = (np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1
    else:
        subsets_kn = np.random.default_rng(SEED).integers(0, 2, size=(PATTERNS, n))
        subsets_kn = subsets_kn[subsets_kn.any(axis=-1)]
    means: Floats = values @ (subsets_kn / subsets_kn.sum(axis=-1, keepdims=True)).T
    return means


class Survival(NamedTuple):
    """Kaplan-Meier's share of runs that have NOT reached an accuracy yet, at the steps where it falls."""

    steps: Floats
    unsolved: Floats
    low: Floats
    high: Floats


def kaplan_meier(steps_n: ArrayLike, solved_n: ArrayLike, confidence: float = 0.95) -> Survival:
    """Return the share of runs still unsolved, by step, with its interval (log-log, Greenwood).

    Args:
        steps_n: a run: the step at which it reached the accuracy, or its last step where it never did.
        solved_n: bool, whether it did.
    """
    sf = stats.ecdf(_censored(steps_n, solved_n)).sf
    if not np.asarray(solved_n, dtype=bool).any():  # no step at which the share falls
        none = np.ones_like(sf.quantiles)
        return Survival(sf.quantiles, sf.probabilities, none * math.nan, none * math.nan)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where no run is left the interval is NaN, as it should be
        ends = sf.confidence_interval(confidence, method="log-log")
    return Survival(sf.quantiles, sf.probabilities, ends.low.probabilities, ends.high.probabilities)


def log_rank(
    a_steps: ArrayLike,
    a_solved: ArrayLike,
    b_steps: ArrayLike,
    b_solved: ArrayLike,
) -> float:
    """Return the two-sided p of the log-rank test that two arms solve at the same pace; NaN where no run solved."""
    if not (np.asarray(a_solved, dtype=bool).any() or np.asarray(b_solved, dtype=bool).any()):
        return math.nan
    return float(stats.logrank(_censored(a_steps, a_solved), _censored(b_steps, b_solved)).pvalue)


def _censored(steps_n: ArrayLike, solved_n: ArrayLike) -> stats.CensoredData:
    return stats.CensoredData.right_censored(np.asarray(steps_n, float), ~np.asarray(solved_n, dtype=bool))
