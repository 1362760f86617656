"""Intervals over seeds cover the truth as often as they say, whatever the seeds' shape; tests agree with intervals."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from lightning_metatok.analysis import seeds

SEEDS = (5, 10, 20)
SAMPLES = 8000
"""Simulated studies: a coverage of 0.95 is known to 0.0024 (one standard error)."""
NEAR = (0.93, 0.97)

Floats = NDArray[np.float64]


def bimodal(rng: np.random.Generator, n: int, solve: float) -> Floats:
    """Accuracies of runs that solve a task (near .97) or do not (near .3)."""
    solved = rng.random((SAMPLES, n)) < solve
    return np.where(solved, rng.normal(0.97, 0.01, (SAMPLES, n)), rng.normal(0.3, 0.03, (SAMPLES, n)))


def normal_differences(rng: np.random.Generator, n: int) -> Floats:
    return rng.normal(0.1, 0.2, (SAMPLES, n)) - 0.1


def bimodal_differences(rng: np.random.Generator, n: int) -> Floats:
    return bimodal(rng, n, 0.5) - bimodal(rng, n, 0.5)


def mostly_solved_differences(rng: np.random.Generator, n: int) -> Floats:
    return bimodal(rng, n, 0.8) - bimodal(rng, n, 0.8)


def covered(low: Floats, high: Floats) -> float:
    return float(((low <= 0) & (high >= 0)).mean())


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("draw", [normal_differences, bimodal_differences, mostly_solved_differences])
def test_the_sign_flip_interval_covers_as_it_says(draw, n: int) -> None:
    differences = draw(np.random.default_rng(n), n)
    found = np.array([covered(*seeds.sign_flip_ends(part)) for part in np.array_split(differences, 20)]).mean()
    assert NEAR[0] <= found <= NEAR[1]


@pytest.mark.parametrize("n", SEEDS)
def test_the_t_interval_covers_normal_seeds_as_it_says(n: int) -> None:
    differences = normal_differences(np.random.default_rng(n), n)
    half = stats.t.ppf(0.975, n - 1) * differences.std(axis=1, ddof=1) / math.sqrt(n)
    assert NEAR[0] <= covered(differences.mean(axis=1) - half, differences.mean(axis=1) + half) <= NEAR[1]
    one = seeds.paired_t(differences[0])
    assert one.low == pytest.approx(differences[0].mean() - half[0])


def test_three_seeds_that_solve_or_not_would_have_been_covered_far_too_rarely() -> None:
    """Why there is no interval below five seeds: Student's t of three means of one arm where half of the runs solve."""
    values = bimodal(np.random.default_rng(3), 3, 0.5) - (0.97 + 0.3) / 2
    half = stats.t.ppf(0.975, 2) * values.std(axis=1, ddof=1) / math.sqrt(3)
    assert covered(values.mean(axis=1) - half, values.mean(axis=1) + half) < 0.85


@pytest.mark.slow
@pytest.mark.parametrize("n", SEEDS)
def test_ties_do_not_make_the_sign_flip_test_reject_too_often(n: int) -> None:
    rng = np.random.default_rng(n)
    differences = rng.integers(-1, 2, (2000, n)).astype(float)
    rejected = np.mean([seeds.sign_flip(one).p < 0.05 for one in differences])
    assert rejected <= 1 - NEAR[0]


@given(st.lists(st.floats(-2, 2), min_size=5, max_size=7))
def test_sign_flip_p_counts_all_patterns(differences: list[float]) -> None:
    values = np.round(np.array(differences), 3)
    total = values.sum()
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    sums = signs @ values
    upper = ((sums > total + 1e-9).sum() + 0.5 * (np.abs(sums - total) <= 1e-9).sum()) / len(signs)
    expected = min(1.0, 2 * min(upper, 1 - upper))
    # Means of subsets that are 0 up to rounding may fall on either side.
    means = np.array([values[pattern < 0].mean() for pattern in signs if (pattern < 0).any()])
    if not ((means != 0) & (np.abs(means) < 1e-9)).any():
        assert seeds.sign_flip(values).p == pytest.approx(expected)


@given(st.lists(st.integers(-50, 50), min_size=5, max_size=9), st.integers(-20, 20))
def test_the_interval_is_what_the_test_does_not_reject(differences: list[int], shift: int) -> None:
    values = np.array(differences, dtype=float)
    found = seeds.sign_flip(values)
    if found.low < shift < found.high:
        assert seeds.sign_flip(values - shift).p >= 0.05 - 1e-12
    if shift < found.low or shift > found.high:
        assert seeds.sign_flip(values - shift).p < 0.05 + 1e-12


def test_five_seeds_give_their_smallest_and_largest_difference() -> None:
    found = seeds.sign_flip([0.3, 0.1, 0.2, 0.5, 0.4])
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.5))
    assert found.p == pytest.approx(1 / 32)


def test_fewer_than_five_seeds_have_no_interval() -> None:
    for interval in (seeds.paired_t, seeds.sign_flip):
        with pytest.raises(AssertionError, match="fewer than 5 seeds"):
            interval([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(("n", "spread"), [(5, 0.1), (20, 0.1)])
def test_power_is_how_often_the_test_finds_a_difference(n: int, spread: float) -> None:
    draws = np.random.default_rng(1).normal(0.1, spread, (4000, n))
    found = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert seeds.power(0.1, spread, n) == pytest.approx(found, abs=0.025)  # three standard errors
    assert seeds.power(seeds.detectable(spread, n), spread, n) == pytest.approx(0.8, abs=1e-3)
    assert seeds.detectable(0.0, n) == 0.0
    assert seeds.detectable(spread, 1) == math.inf


def test_kaplan_meier_counts_runs_that_never_solve_as_at_risk_to_their_end() -> None:
    # Steps 100, 200, 300 solved, one run ended unsolved at 200, one at 400: 5 at risk, then 4, then 2.
    found = seeds.kaplan_meier([100, 200, 300, 200, 400], [True, True, True, False, False])
    shares = dict(zip(found.steps, found.unsolved, strict=True))
    assert shares[100] == pytest.approx(4 / 5)
    assert shares[200] == pytest.approx(4 / 5 * 3 / 4)
    assert shares[300] == pytest.approx(4 / 5 * 3 / 4 * 1 / 2)
    assert np.all(found.low[1:3] <= found.unsolved[1:3])


def test_kaplan_meier_of_runs_that_all_solved_has_no_interval_at_the_end() -> None:
    found = seeds.kaplan_meier([100, 200, 300], [True, True, True])  # a warning would be an error here
    assert found.unsolved.tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert np.isfinite(found.low).tolist() == [True, True, False]


def test_numbers_that_agree_but_for_rounding_have_no_spread() -> None:
    differences = [(2.0**seed + 0.1) - 2.0**seed for seed in range(6)]
    assert np.ptp(differences) > 0
    assert math.isnan(seeds.paired_t(differences).p)
    assert math.isnan(seeds.welch(differences, [0.3] * 5).p)


def test_log_rank_tells_fast_arms_from_slow_ones() -> None:
    fast, slow = [100, 120, 140, 160, 180, 200], [400, 420, 440, 460, 480, 500]
    solved = [True] * 6
    assert seeds.log_rank(fast, solved, slow, solved) < 0.01
    assert seeds.log_rank(fast, solved, fast, solved) == pytest.approx(1)
    assert math.isnan(seeds.log_rank(fast, [False] * 6, slow, [False] * 6))
