"""One number a seed, summed up: what the runs of a condition say of it, and the difference of two conditions.

    one condition     mean, smallest and largest seed; of losses Student's interval, of exact answers how many runs
                      solved the task, with Wilson's interval over RUNS
    two, paired       shares of right answers: inverted sign-flip test; other numbers: paired t
    two, not paired   Welch's t: no five seeds in common, or text that is not known to be the same

A seed is what is drawn: prompts of one run say how well that run does, not how well such runs do. So fewer than five
seeds have neither interval nor p. How often each interval holds is simulated: docs/method.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lightning_metatok.analysis.statistics import wilson_interval

CONFIDENCE = 0.95
POWER = 0.8
"""How often the smallest difference that is stated as detectable would have been found."""
SOLVED = 0.9
"""Share of exact answers from which on a run counts as having solved its task."""
FEWEST = 5
"""Seeds from which on there is an interval; that of `analysis.seeds`, which needs SciPy."""

PAIRED_T, SIGN_FLIP, WELCH = "paired t", "sign flips", "Welch"
Values = Mapping[object, float]
"""A value by seed."""


class Solved(NamedTuple):
    """How many of some runs reached the accuracy `at`, and Wilson's interval of that share over RUNS (else NaN)."""

    n_solved: int
    of: int
    low: float
    high: float
    at: float


@dataclass(frozen=True)
class Estimate:
    """A mean over `n_seeds` runs. `interval`: t, wilson (the prompts of ONE run), or empty; then its ends are NaN."""

    mean: float
    smallest: float
    largest: float
    n_seeds: int
    low: float = math.nan
    high: float = math.nan
    interval: str = ""
    solved: Solved | None = None


@dataclass(frozen=True)
class Difference:
    """a - b over seeds.

    Attributes:
        n_seeds: shared seeds where it is paired, else those of the smaller side.
        by: the test that p and the interval come from; empty with fewer than five seeds, then those are NaN.
        detectable: smallest true difference that this many seeds with this spread find with `POWER`; else NaN. It is
            Student's, also where the test is another.
    """

    mean: float
    n_seeds: int
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    by: str = ""
    detectable: float = math.nan

    @property
    def has_interval(self) -> bool:
        """Whether there is one; differences without any spread have none."""
        return math.isfinite(self.low)


def is_accuracy(metric: str) -> bool:
    """Whether a metric is a share of answers that are right, 0 to 1."""
    return metric.startswith(("accuracy/", "answers/"))


def is_exact(metric: str) -> bool:
    """Whether a metric is the share of prompts answered exactly, so that a run can be said to have solved its task."""
    return metric.startswith(("accuracy/exact/", "answers/"))


def estimate(
    values_n: ArrayLike,
    *,
    share: bool = False,
    n_items: int | None = None,
    solved: float = 0.0,
) -> Estimate:
    """Return the mean of one value a seed.

    Args:
        values_n: one number a seed.
        share: values lie between 0 and 1. They pile up at both ends, where Student's interval of a mean does not hold.
        n_items: prompts behind each value; one run alone has Wilson's interval over them.
        solved: the value from which on a run has solved its task; 0 where nothing is to be solved.
    """
    values_n = np.asarray(values_n, dtype=np.float64)
    n = len(values_n)
    low, high, interval = math.nan, math.nan, ""
    if share and n == 1 and n_items:
        low, high = _wilson(round(float(values_n[0]) * n_items), n_items)
        interval = "wilson"
    elif not share and n >= FEWEST:
        from lightning_metatok.analysis import seeds  # SciPy: most of a second, which a verb's --help does not need

        if seeds.has_spread(values_n):
            _, low, high, _ = seeds.paired_t(values_n, CONFIDENCE)
            interval = "t"
    summed = _solved(values_n, solved) if solved else None
    return Estimate(
        float(values_n.mean()), float(values_n.min()), float(values_n.max()), n, low, high, interval, summed
    )


def difference(
    a: Values,
    b: Values,
    *,
    share: bool = False,
    paired: bool = True,
) -> Difference:
    """Return the mean of a - b with its interval and two-sided p.

    Args:
        a, b: value by seed, one at least.
        share: values are shares of right answers.
        paired: whether one seed of both may be taken together; False where they were scored on different text.
    """
    shared = [seed for seed in a if seed in b]
    a_n, b_n = (np.array(list(values.values())) for values in (a, b))
    if paired and (len(shared) >= FEWEST or (len(shared) >= 2 and min(len(a), len(b)) < FEWEST)):
        return _paired(np.array([a[seed] - b[seed] for seed in shared]), share=share)
    mean, n = float(a_n.mean() - b_n.mean()), min(len(a), len(b))
    if n < FEWEST:
        return Difference(mean, n)
    from lightning_metatok.analysis import seeds

    _, low, high, p = seeds.welch(a_n, b_n, CONFIDENCE)
    if not math.isfinite(p):
        return Difference(mean, n, by=WELCH)
    # As many seeds of one sample as have Welch's degrees of freedom, with the spread that gives the same error.
    variance_a, variance_b = a_n.var(ddof=1) / len(a_n), b_n.var(ddof=1) / len(b_n)
    error = variance_a + variance_b
    freedom = error**2 / (variance_a**2 / (len(a_n) - 1) + variance_b**2 / (len(b_n) - 1))
    found = seeds.detectable(math.sqrt(error * (freedom + 1)), freedom + 1, POWER, CONFIDENCE)
    return Difference(mean, n, low, high, p, WELCH, found)


def _paired(values_n: np.ndarray, *, share: bool) -> Difference:
    mean, n = float(values_n.mean()), len(values_n)
    if n < FEWEST:
        return Difference(mean, n)
    from lightning_metatok.analysis import seeds

    test, by = (seeds.sign_flip, SIGN_FLIP) if share else (seeds.paired_t, PAIRED_T)
    _, low, high, p = test(values_n, CONFIDENCE)
    if not seeds.has_spread(values_n):  # an interval without any width would look certain
        return Difference(mean, n, p=p, by=by)
    spread = float(values_n.std(ddof=1))
    return Difference(mean, n, low, high, p, by, seeds.detectable(spread, n, POWER, CONFIDENCE))


def smallest_p(found: Sequence[Difference]) -> float:
    """Return the smallest p that the sign-flip tests among `found` can give at all; 0 where there are none."""
    return max((2.0**-one.n_seeds for one in found if one.by == SIGN_FLIP), default=0.0)


def runs_text(n: int) -> str:
    """What stands where an interval would."""
    return f"{n} run{'s' if n != 1 else ''}, no interval"


def solved_text(found: Solved) -> str:
    """``4 of 6 [0.300, 0.903]``: the interval is over runs."""
    ends = f" [{found.low:.2f}, {found.high:.2f}]" if math.isfinite(found.low) else ""
    return f"{found.n_solved} of {found.of}{ends}"


def _solved(values_n: np.ndarray, at: float) -> Solved:
    count, n = int((values_n >= at).sum()), len(values_n)
    low, high = _wilson(count, n) if n >= FEWEST else (math.nan, math.nan)
    return Solved(count, n, low, high, at)


def _wilson(count: int, n: int) -> tuple[float, float]:
    low, high = wilson_interval(count, n, CONFIDENCE)
    return float(low), float(high)
