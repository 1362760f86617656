"""Rate-distortion curves: sources whose curve is known, and what a curve must be whatever the source."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lightning_metatok.analysis import rate_distortion_curve
from lightning_metatok.analysis.bottleneck import Gaussian
from lightning_metatok.analysis.rate_distortion import RateDistortion, lower_convex_hull

Floats = NDArray[np.float64]


def white(n: int, width: int, seed: int) -> Floats:
    """Normal draws whose sample covariance is the identity: a curve of theirs has no error of the draw."""
    x = np.random.default_rng(seed).normal(size=(n, width))
    x -= x.mean(axis=0)
    whitened: Floats = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T, bias=True).reshape(width, width))).T
    return whitened


def filled(variances: Floats, level: float) -> tuple[float, float]:
    """Rate in nats and mean square error of reverse water-filling up to `level`."""
    return float(0.5 * np.log(variances / np.minimum(level, variances)).sum()), float(
        np.minimum(level, variances).sum()
    )


@pytest.fixture(scope="module")
def remote() -> tuple[RateDistortion, Floats]:
    """A vector is seen through a mixing and noise, and told with squared error; variances of what can be told."""
    known, noise = white(3000, 6, seed=0)[:, :3], white(3000, 6, seed=0)[:, 3:5]
    variances = np.array([4.0, 1.0, 0.25])
    mixing = np.array([[2.0, 0.3, 0.0], [0.0, 1.0, -0.5], [0.4, 0.0, 1.5]])
    targets = np.concatenate([known * np.sqrt(variances), noise[:, :1] * 0.6], axis=1)
    betas = [0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.5, 6]
    curve = rate_distortion_curve(known @ mixing + 3, targets, Gaussian(), betas=betas, width=4, tolerance=2e-4)
    return curve, variances


@pytest.mark.slow
def test_gaussian_curve_is_reverse_water_filling(remote: tuple[RateDistortion, Floats]) -> None:
    """With squared error / 2 as distortion in nats the price is the water level: every point of the curve is known.

    The last target is noise that the states know nothing of: distortion that no rate removes.
    """
    curve, variances = remote
    rates, distortions = curve.points
    for beta, rate, distortion in zip(curve.betas_B, rates, distortions, strict=True):
        known_rate, known_error = filled(variances, beta)
        error = 2 * distortion - 4 * np.log(2 * np.pi)
        whole = variances.sum() + 0.36
        assert error == pytest.approx(known_error + 0.36, abs=0.02 * whole), beta
        # Near the price at which a dimension is given up, rate is undecided and costs next to nothing.
        assert rate == pytest.approx(known_rate, rel=0.02, abs=0.05), beta
    levels = np.geomspace(0.02, 1.5, 30)  # further on the chord to the guess is long, and above the curve
    known = np.array([filled(variances, level) for level in levels])
    in_bits = 0.5 * (known[:, 1] + 0.36) + 2 * np.log(2 * np.pi)
    assert curve.curve(known[:, 0]) == pytest.approx(in_bits, rel=0.02)
    assert (curve.curve(known[:, 0]) > in_bits - 0.02).all(), "no channel beats the curve"
    assert curve.converged


@pytest.mark.slow
def test_scalar_gaussian_curve_is_the_information_bottleneck_s() -> None:
    """I(z; y) = -1/2 ln(1 - rho² (1 - exp(-2 I(z; x)))) for jointly normal x and y (Chechik et al. 2005)."""
    draws, rho = white(3000, 2, seed=1), 0.8
    x, y = draws[:, :1], rho * draws[:, :1] + np.sqrt(1 - rho**2) * draws[:, 1:]
    curve = rate_distortion_curve(x, y, Gaussian(), betas=[0.01, 0.03, 0.1, 0.2, 0.4, 0.6], width=2, tolerance=1e-4)
    rates, distortions = curve.points
    errors = 2 * distortions - np.log(2 * np.pi)
    told = -0.5 * np.log(errors)  # of a target of variance 1
    known = -0.5 * np.log(1 - rho**2 * (1 - np.exp(-2 * rates)))
    assert told == pytest.approx(known, abs=0.01)
    assert rates == pytest.approx(0.5 * np.log(rho**2 / curve.betas_B), abs=0.04)


@pytest.fixture(scope="module")
def classes() -> tuple[RateDistortion, Floats]:
    """Eight classes of unequal frequency around eight points, and their frequencies."""
    draws = np.random.default_rng(2)
    shares = np.arange(1, 9) / 36
    y = draws.choice(8, p=shares, size=800)
    x = draws.normal(size=(8, 12))[y] * 2 + draws.normal(size=(800, 12))
    return rate_distortion_curve(x, y, betas=np.geomspace(1e-2, 4, 6), width=6), np.bincount(y) / 800


def test_rate_falls_and_distortion_rises_with_the_price(classes: tuple[RateDistortion, Floats]) -> None:
    rates, distortions = classes[0].points
    # Over a price that nothing is worth paying, what is left is the noise of training.
    assert (np.diff(rates) < 0.02).all()
    assert (np.diff(distortions) > -0.02).all()
    assert rates[0] > 2
    assert distortions[0] < 0.35


def test_a_high_price_leaves_no_rate_and_the_entropy_of_the_label(classes: tuple[RateDistortion, Floats]) -> None:
    curve, shares = classes
    rates, distortions = curve.points
    entropy = -(shares * np.log(shares)).sum()
    assert rates[-1] < 0.01
    assert distortions[-1] == pytest.approx(entropy, abs=0.02)
    # Frequencies of eight classes counted on 480 examples cost 7 / 2 / 480 nats, give or take.
    assert curve.guess_N.mean() == pytest.approx(entropy, abs=0.02)


def test_the_curve_is_convex_lies_on_or_below_its_points_and_inside_its_band(
    classes: tuple[RateDistortion, Floats],
) -> None:
    curve, _ = classes
    rates = np.linspace(0, 6, 61)
    distortions = curve.curve(rates)
    assert (np.diff(distortions) <= 1e-12).all()
    assert (np.diff(distortions, n=2) >= -1e-12).all()
    at_points, measured = curve.points
    assert (curve.curve(at_points) <= measured + 1e-12).all()
    low, high = curve.band(rates, n_resamples=200)
    assert (low <= distortions + 0.01).all()
    assert (distortions <= high + 0.01).all()
    assert 0.02 < (high - low)[20] < 0.4
    wide_low, wide_high = curve.band(rates, confidence=0.999, n_resamples=200)
    assert (wide_low <= low).all()
    assert (wide_high >= high).all()


def test_states_that_know_nothing_tell_nothing_even_to_many_parameters() -> None:
    """Held out: 64 dimensions of noise can learn 120 labels by heart, and that helps with no other."""
    draws = np.random.default_rng(3)
    curve = rate_distortion_curve(draws.normal(size=(200, 64)), draws.integers(4, size=200), betas=[0.01, 0.1, 1])
    assert curve.curve([0.0, 50.0]) == pytest.approx([np.log(4)] * 2, abs=0.06)


def test_the_same_seed_gives_the_same_curve() -> None:
    draws = np.random.default_rng(4)
    x, y = draws.normal(size=(53, 3)), draws.integers(3, size=53)  # folds of different sizes
    first, again = (rate_distortion_curve(x, y, betas=[0.1, 1], max_steps=60) for _ in range(2))
    assert np.array_equal(first.distortion_BN, again.distortion_BN)
    assert np.isfinite(first.rate_BN).all()
    assert np.isfinite(first.guess_N).all()
    assert not first.converged
    torch.manual_seed(7)
    other = rate_distortion_curve(x, y, betas=[0.1, 1], max_steps=60, seed=1)
    assert not np.array_equal(first.distortion_BN, other.distortion_BN)


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=12))
def test_hull_is_the_lowest_convex_falling_line_above_no_point(points: list[tuple[int, int]]) -> None:
    x, y = np.array(points).T
    corner_x, corner_y = lower_convex_hull(x, y)
    assert (np.diff(corner_x) > 0).all()
    assert (np.diff(corner_y) < 0).all()
    slopes = np.diff(corner_y) / np.diff(corner_x)
    assert (np.diff(slopes) > 0).all()
    inside = x >= corner_x[0]
    assert (np.interp(x[inside], corner_x, corner_y) <= y[inside] + 1e-9).all()
    assert set(zip(corner_x, corner_y, strict=True)) <= set(zip(x, y, strict=True))
    assert corner_y[-1] == y.min()
    assert corner_x[0] == x.min()


def test_hull_by_hand() -> None:
    x, y = lower_convex_hull([0, 1, 1, 2, 3, 4], [5, 4, 2, 1.5, 1, 3])
    assert (x.tolist(), y.tolist()) == ([0, 1, 3], [5, 2, 1])
