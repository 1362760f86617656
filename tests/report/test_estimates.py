"""Means, differences, intervals and p against numbers worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from lightning_metatok.analysis import seeds
from lightning_metatok.report.estimates import FEWEST, difference, estimate, smallest_p

T4 = 2.7764451051977987
"""Student's t, 0.975, 4 degrees of freedom."""


def by_seed(*values: float) -> dict[object, float]:
    return dict(enumerate(values))


# -- one condition


def test_five_losses_have_students_interval_and_four_have_none() -> None:
    found = estimate([5.0, 5.1, 5.2, 5.3, 5.4])
    half = T4 * math.sqrt(0.025 / 5)
    assert (found.mean, found.low, found.high) == pytest.approx((5.2, 5.2 - half, 5.2 + half))
    assert (found.smallest, found.largest, found.interval) == (5.0, 5.4, "t")
    for n in range(1, FEWEST):
        few = estimate([5.0, 5.1, 5.2, 5.3][:n])
        assert (few.smallest, few.largest, few.interval) == (5.0, 5.0 + (n - 1) / 10, "")
        assert math.isnan(few.low)
    assert seeds.FEWEST == FEWEST


def test_losses_without_spread_do_not_look_certain() -> None:
    assert estimate([0.25] * 5).interval == ""


def test_right_answers_of_several_runs_have_an_interval_over_runs_and_never_over_prompts() -> None:
    found = estimate([0.97, 0.96, 0.3, 0.99, 0.31], share=True, n_items=263, solved=0.9)
    assert (found.interval, math.isnan(found.low)) == ("", True)
    assert found.solved is not None
    # Wilson for 3 of 5: (x + z²/2 ± z sqrt(x(1 - x/n) + z²/4)) / (n + z²).
    z = 1.959963984540054
    half = z * math.sqrt(3 * (1 - 3 / 5) + z * z / 4) / (5 + z * z)
    middle = (3 + z * z / 2) / (5 + z * z)
    assert found.solved[:2] == (3, 5)
    assert (found.solved.low, found.solved.high) == pytest.approx((middle - half, middle + half))
    agreeing = estimate([1.0, 1.0, 1.0], share=True, n_items=263, solved=0.9)  # seeds that agree are no prompts either
    assert (agreeing.interval, agreeing.solved and agreeing.solved.of) == ("", 3)
    assert agreeing.solved is not None
    assert math.isnan(agreeing.solved.low)


def test_one_run_alone_may_have_the_interval_of_its_own_prompts() -> None:
    found = estimate([81 / 263], share=True, n_items=263)
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I.
    assert found.interval == "wilson"
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_intervals_over_seeds_hold_the_true_mean_as_often_as_they_say() -> None:
    generator = np.random.default_rng(7)
    found = [estimate(generator.normal(3.0, 2.0, size=5)) for _ in range(2000)]
    covered = np.mean([one.low <= 3.0 <= one.high for one in found])
    assert 0.935 < covered < 0.965  # 0.95 and three standard errors of 2,000 draws


# -- two


def test_losses_are_paired_by_seed_with_students_t() -> None:
    # a - b is 0.1, 0.2, 0.3, 0.4, 0.5: mean 0.3, standard deviation 0.1581, t = 0.3 / (0.1581 / sqrt 5) = 4.2426.
    found = difference(by_seed(5.1, 0.2, -2.7, 1.4, 2.5), by_seed(5.0, 0.0, -3.0, 1.0, 2.0))
    half = T4 * math.sqrt(0.025 / 5)
    assert (found.by, found.n_seeds) == ("paired t", 5)
    assert (found.mean, found.low, found.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))
    t = 0.3 / math.sqrt(0.025 / 5)
    # Student's distribution with 4 degrees of freedom, in closed form.
    assert found.p == pytest.approx(1 - t / math.sqrt(t * t + 4) * (1 + 2 / (t * t + 4)))


def test_shares_are_paired_by_seed_with_sign_flips() -> None:
    found = difference(by_seed(0.9, 0.8, 0.7, 0.6, 0.9), by_seed(0.6, 0.7, 0.5, 0.1, 0.5), share=True)
    assert (found.by, found.p) == ("sign flips", pytest.approx(1 / 32))
    assert (found.low, found.high) == pytest.approx((0.1, 0.5))  # five seeds: smallest and largest difference


def test_what_pairs_nothing_is_welchs_test() -> None:
    # Means 3 and 6, both with variance 2.5 over 5 seeds: t = -3, 8 degrees of freedom.
    a, b = by_seed(1, 2, 3, 4, 5), {seed + 10: value + 3.0 for seed, value in by_seed(1, 2, 3, 4, 5).items()}
    half = 2.306004135033371
    for other, paired in ((b, True), ({key - 10: value for key, value in b.items()}, False)):
        found = difference(a, other, paired=paired)
        assert found.by == "Welch"
        assert (found.mean, found.low, found.high) == pytest.approx((-3, -3 - half, -3 + half))
        assert found.p == pytest.approx(0.0170716812337895, rel=1e-6)


def test_only_seeds_that_both_have_are_paired() -> None:
    a, b = by_seed(1, 2, 3, 4, 5) | {"a": 100.0}, by_seed(0.5, 1, 2, 3, 4) | {"b": -100.0}
    found = difference(a, b)
    assert (found.mean, found.n_seeds, found.by) == (pytest.approx(0.9), 5, "paired t")


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("paired", [True, False])
def test_fewer_than_five_seeds_have_a_difference_and_nothing_else(n: int, share: bool, paired: bool) -> None:
    several = by_seed(0.5, 0.6, 0.7, 0.8, 0.65, 0.3)
    few = by_seed(*(0.1, 0.3, 0.2, 0.15)[:n])
    for a, b in ((few, several), (several, few), (few, {seed: value / 2 for seed, value in few.items()})):
        found = difference(a, b, share=share, paired=paired)
        assert (found.n_seeds, found.by) == (n, "")
        assert all(math.isnan(value) for value in (found.low, found.high, found.p, found.detectable))
    # Two or more that both have are still taken seed by seed: what a seed does to both is no part of the difference.
    both = several if n == 1 or not paired else {seed: several[seed] for seed in few}
    expected = sum(few.values()) / n - sum(both.values()) / len(both)
    assert difference(few, several, share=share, paired=paired).mean == pytest.approx(expected)


@pytest.mark.parametrize("step", [0.5, 0.1])  # 0.1: differences that are equal but for rounding
def test_differences_without_spread_have_no_interval_that_looks_certain(step: float) -> None:
    b = by_seed(1.5, 2.5, 3.5, 4.5, 5.7)
    a = {seed: value + step for seed, value in b.items()}
    losses, shares = difference(a, b), difference(a, b, share=True)
    assert (losses.mean, losses.has_interval, losses.by) == (pytest.approx(step), False, "paired t")
    assert math.isnan(losses.p)
    assert (shares.has_interval, shares.p) == (False, pytest.approx(1 / 32))  # five of five are better


def test_what_is_stated_as_detectable_is_found_that_often() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 0.2, 8)
    found = difference(dict(enumerate(values)), dict.fromkeys(range(8), 0.0))
    draws = rng.normal(found.detectable, values.std(ddof=1), (4000, 8))
    assert (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.02)
    # Two arms of 6 and 9 seeds with different spreads, nothing paired.
    a, b = rng.normal(0, 0.1, 6), rng.normal(0, 0.3, 9)
    welch = difference(dict(enumerate(a)), {n + 100: value for n, value in enumerate(b)})
    one = rng.normal(welch.detectable, a.std(ddof=1), (4000, 6))
    two = rng.normal(0, b.std(ddof=1), (4000, 9))
    power = (stats.ttest_ind(one, two, axis=1, equal_var=False).pvalue < 0.05).mean()
    assert power == pytest.approx(0.8, abs=0.03)


def test_the_smallest_p_that_so_few_seeds_can_give() -> None:
    shares = difference(by_seed(1, 1, 1, 1, 0.9), by_seed(0, 0, 0, 0, 0), share=True)
    assert smallest_p([shares]) == shares.p == 1 / 32
    assert smallest_p([difference(by_seed(1, 2, 3, 4, 6), by_seed(0, 0, 0, 0, 0))]) == 0
