"""How often intervals over seeds hold the true difference, simulated: the table of docs/method.md.

    python benchmarks/interval_coverage.py [--samples 20000]

Every row is a way in which seeds differ; a sample is a study of n seeds an arm. Losses are normal. Accuracies of runs
that solve their task lie near .97, of others near .3. Arms are drawn independently of each other: pairing helps where
seeds share something, and must do no harm where they do not.
"""

import argparse
import math
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lightning_metatok.analysis import seeds
from lightning_metatok.analysis.statistics import wilson_interval

N = (5, 10, 20)
NOMINAL = 0.95
SOLVED, UNSOLVED = (0.97, 0.01), (0.3, 0.03)
"""Mean and standard deviation of accuracies."""

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]


def normal(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Losses."""
    return rng.normal(3.0, 0.1, shape)


def solving(share: float) -> Draw:
    """Accuracies of an arm of which `share` solves its task."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
        return np.where(rng.random(shape) < share, rng.normal(*SOLVED, shape), rng.normal(*UNSOLVED, shape))

    return draw


def ties(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Answers to a single prompt: right or wrong."""
    return rng.integers(0, 2, shape).astype(np.float64)


def apart(a: float, b: float) -> float:
    """True difference of two arms of which the shares `a` and `b` solve."""
    return (a - b) * (SOLVED[0] - UNSOLVED[0])


ROWS: dict[str, tuple[Draw, Draw, float]] = {
    "normal": (normal, normal, 0.0),
    "half solve, in both arms": (solving(0.5), solving(0.5), 0.0),
    "four in five solve, in both arms": (solving(0.8), solving(0.8), 0.0),
    "only ties: right or wrong": (ties, ties, 0.0),
    "half solve against none": (solving(0.5), solving(0.0), apart(0.5, 0)),
    "four in five against half": (solving(0.8), solving(0.5), apart(0.8, 0.5)),
    "four in five against none": (solving(0.8), solving(0.0), apart(0.8, 0)),
}
"""The two arms, and their true difference."""


def covered(ends: tuple[Floats, Floats], truth: float) -> float:
    """Share of intervals that hold the truth."""
    low, high = ends
    rounding = 1e-12
    return float(((low <= truth + rounding) & (truth - rounding <= high)).mean())


def paired_t(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Student's intervals of many samples [samples, n] at once; `seeds.paired_t` is that of one."""
    values = a - b
    n = values.shape[1]
    half = stats.t.ppf((1 + NOMINAL) / 2, n - 1) * values.std(axis=1, ddof=1) / math.sqrt(n)
    return values.mean(axis=1) - half, values.mean(axis=1) + half


def sign_flip(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Intervals of the inverted sign-flip test."""
    parts = [seeds.sign_flip_ends(part, NOMINAL) for part in np.array_split(a - b, max(1, len(a) // 200))]
    low, high = (np.concatenate(side) for side in zip(*parts, strict=True))
    return low, high


def welch(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Welch's intervals; without any spread the interval is the difference itself."""
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = stats.ttest_ind(a, b, axis=1, equal_var=False).confidence_interval(NOMINAL)
    mean = a.mean(axis=1) - b.mean(axis=1)
    return np.where(np.isnan(found.low), mean, found.low), np.where(np.isnan(found.high), mean, found.high)


METHODS = {"paired t": paired_t, "sign flips": sign_flip, "Welch": welch}


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20000, help="simulated studies of a cell (20000)")
    samples = parser.parse_args().samples
    header = [f"{name}, n = {n}" for name in METHODS for n in N]
    print(f"| seeds | {' | '.join(header)} |\n|---|{'---:|' * len(header)}")
    for row, (draw_a, draw_b, truth) in ROWS.items():
        rng = np.random.default_rng(20250918)
        drawn = {n: (draw_a(rng, (samples, n)), draw_b(rng, (samples, n))) for n in N}
        found = [covered(method(*drawn[n]), truth) for method in METHODS.values() for n in N]
        print(f"| {row} | {' | '.join(f'{100 * one:.1f}' for one in found)} |", flush=True)
    print("\nWilson's interval over runs of the share that solves:\n")
    print(f"| share | {' | '.join(f'n = {n}' for n in N)} |\n|---|{'---:|' * len(N)}")
    for share in (0.5, 0.8, 0.95):
        found = []
        for n in N:
            low, high = wilson_interval(np.arange(n + 1), n, NOMINAL)
            chances = stats.binom.pmf(np.arange(n + 1), n, share)
            found.append(float(chances[(low <= share) & (share <= high)].sum()))
        print(f"| {share:g} | {' | '.join(f'{100 * one:.1f}' for one in found)} |")
    print("\nSmallest difference found with a power of 80 %, in standard deviations of the differences:\n")
    print(f"| {' | '.join(f'n = {n}' for n in (5, 8, 10, 20, 40))} |\n|{'---:|' * 5}")
    print(f"| {' | '.join(f'{seeds.detectable(1.0, n):.2f}' for n in (5, 8, 10, 20, 40))} |")


if __name__ == "__main__":
    main()
