"""Intervals and tests of paired conditions: textbook values, and the properties that make them what they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_metatok.analysis.statistics import (
    holm,
    mcnemar,
    paired_bootstrap,
    resampled_means,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_textbook_s_intervals(right: int, n: int, low: float, high: float) -> None:
    """Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3; four digits."""
    assert wilson_interval(right, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_wilson_knows_nothing_without_items_and_takes_arrays() -> None:
    low, high = wilson_interval([[0, 81], [0, 20]], [[0, 263], [20, 20]])
    assert low.shape == (2, 2)
    assert (low[0, 0], high[0, 0]) == (0, 1)
    assert (low[0, 1], high[0, 1]) == wilson_interval(81, 263)
    assert (1 - low[1, 1], 1 - high[1, 1]) == pytest.approx((high[1, 0], low[1, 0]))


@given(n=st.integers(1, 500), data=st.data())
def test_wilson_holds_the_estimate_and_shrinks_with_n(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    low, high = wilson_interval(right, n)
    assert 0 <= low <= right / n <= high <= 1
    low_4, high_4 = wilson_interval(4 * right, 4 * n)
    assert low <= low_4 <= high_4 <= high
    assert 1.2 < (high - low) / (high_4 - low_4) < 4.1  # about 2, and 4 where nothing or everything is right
    wide_low, wide_high = wilson_interval(right, n, confidence=0.99)
    assert wide_low <= low <= high <= wide_high


def test_wilson_covers_the_truth_as_often_as_it_says() -> None:
    n, draws = 100, np.random.default_rng(0)
    low, high = wilson_interval(np.arange(n + 1), n)
    truths = np.linspace(0.02, 0.98, 97)
    right = draws.binomial(n, truths, size=(2000, 97))
    covered = (low[right] <= truths) & (truths <= high[right])
    # 194,000 draws: the mean over truths is known to 0.0005; single truths waver because counts are whole numbers.
    assert covered.mean() == pytest.approx(0.953, abs=0.005)
    assert covered.mean(axis=0).min() > 0.9


def test_bootstrap_is_near_the_normal_interval_with_many_items() -> None:
    draws = np.random.default_rng(1)
    a_n = draws.random(2000) < 0.7
    b_n = np.where(draws.random(2000) < 0.2, draws.random(2000) < 0.4, a_n)
    mean, low, high = paired_bootstrap(a_n, b_n)
    difference_n = a_n.astype(float) - b_n
    half = 1.96 * difference_n.std() / 2000**0.5
    assert mean == difference_n.mean()
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.002)
    assert paired_bootstrap(a_n, b_n) == (mean, low, high), "the same data give the same interval"
    assert paired_bootstrap(b_n, a_n) == pytest.approx((-mean, -high, -low), abs=0.002)


def test_bootstrap_gains_from_pairing() -> None:
    """Items are hard for both conditions or for none, so that one order of items tells them apart and another not."""
    a_n = np.arange(400) < 200
    b_n = np.arange(400) < 180
    paired, shuffled = (paired_bootstrap(a_n, b) for b in (b_n, np.random.default_rng(0).permutation(b_n)))
    assert paired.mean == shuffled.mean == 0.05
    assert 0 < paired.low < paired.high < 0.1
    assert shuffled.low < 0 < shuffled.high


def test_bootstrap_covers_the_truth() -> None:
    draws, covered = np.random.default_rng(2), 0
    for _ in range(150):
        a_n, b_n = draws.random(150) < 0.5, draws.random(150) < 0.35
        _, low, high = paired_bootstrap(a_n, b_n, n_resamples=499)
        covered += low <= 0.15 <= high
    assert 0.89 < covered / 150 < 0.99  # three standard errors of 0.95 are 0.053


@pytest.mark.parametrize("values", [[True], [True, True, True], [0.25, 0.25]])
def test_bootstrap_of_equal_differences_is_that_difference(values: list[float]) -> None:
    assert paired_bootstrap(values, [0.0] * len(values)) == (values[0], values[0], values[0])


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    # 2 P(X <= k) of n fair coins, by hand: 1/512, 22/1024, 1 (5 of 10 is the likeliest split), and R's 0.04139.
    [(0, 10, 2 / 1024), (1, 9, 22 / 1024), (5, 5, 1.0), (15, 5, 0.041389465), (0, 0, 1.0)],
)
def test_mcnemar_counts_only_items_that_differ(only_a: int, only_b: int, p: float) -> None:
    a_n = np.repeat([True, False, True, False], [only_a, only_b, 40, 7])
    b_n = np.repeat([False, True, True, False], [only_a, only_b, 40, 7])
    assert mcnemar(a_n, b_n) == pytest.approx(p, rel=1e-6)
    assert mcnemar(b_n, a_n) == mcnemar(a_n, b_n)


def test_mcnemar_rarely_finds_what_is_not_there() -> None:
    draws = np.random.default_rng(3)
    p = [mcnemar(draws.random(60) < 0.4, draws.random(60) < 0.4) for _ in range(600)]
    assert np.mean(np.array(p) <= 0.05) <= 0.06  # exact tests stay below 0.05


def test_holm_multiplies_by_the_tests_that_are_left_and_never_falls() -> None:
    # Sorted: 0.01 x 4, 0.02 x 3 = 0.06, 0.03 x 2 = 0.06, 0.5; in the order given.
    assert holm([0.5, 0.01, 0.03, 0.02]).tolist() == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.6]).tolist() == [1.0, 1.0]


def test_holm_counts_no_test_where_there_was_none() -> None:
    found = holm([0.01, float("nan"), 0.04])
    assert found[[0, 2]].tolist() == pytest.approx([0.02, 0.04])
    assert np.isnan(found[1])
    assert holm([]).shape == (0,)


def test_resampled_means_have_the_spread_of_a_mean_and_keep_items_together() -> None:
    x = np.random.default_rng(5).normal(3, 2, size=400)
    means = resampled_means(np.stack([x, -x, np.ones(400)], axis=1))
    assert means.shape == (2000, 3)
    assert means[:, 0].mean() == pytest.approx(x.mean(), abs=0.01)
    assert means[:, 0].std() == pytest.approx(x.std() / 20, rel=0.08)
    assert np.allclose(means[:, 0], -means[:, 1])
    assert np.allclose(means[:, 2], 1)
