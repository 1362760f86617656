"""Lower bounds on information: sources of known mutual information, and what no bound may exceed."""

import math

import numpy as np
import pytest

from lightning_metatok.analysis import contrasted_information, probed_information


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_contrast_finds_the_information_of_correlated_normals(rho: float) -> None:
    draws = np.random.default_rng(0)
    x, noise = draws.normal(size=(2, 2500, 2))
    y = rho * x + np.sqrt(1 - rho**2) * noise
    known = -math.log(1 - rho**2)  # two dimensions, -1/2 ln(1 - rho²) each
    found = contrasted_information(x, y @ [[2.0, 1.0], [0.0, 3.0]] - 5)  # which no invertible map changes
    mean, low, high = found.estimate()
    assert low < known + 0.02, "a lower bound"
    assert mean == pytest.approx(known, rel=0.15)
    assert low < mean < high
    assert high - low < 0.25
    assert found.limit == pytest.approx(math.log(500))


def test_contrast_cannot_say_more_than_log_k() -> None:
    x = np.random.default_rng(1).normal(size=(150, 8))
    found = contrasted_information(x, x, max_steps=600)  # all of it, without end: log K is all that can be said
    assert found.limit == pytest.approx(math.log(30))
    assert (found.values_N <= found.limit + 1e-5).all()
    assert found.estimate().mean > found.limit - 0.6


def test_what_is_independent_carries_nothing() -> None:
    draws = np.random.default_rng(2)
    x, y = draws.normal(size=(2, 600, 12))
    assert contrasted_information(x, y).estimate().mean == pytest.approx(0, abs=0.02)
    probed = probed_information(x, draws.integers(5, size=600)).estimate()
    assert -0.05 < probed.mean < 0.01
    assert probed.low <= 0


@pytest.mark.parametrize("flipped", [0.1, 0.4])
def test_probing_finds_the_capacity_of_a_noisy_channel(flipped: float) -> None:
    """A uniform letter of 5 arrives as itself or, at times, as one of the four others: log 5 - h(e) - e log 4."""
    sent, n = np.arange(2000) % 5, np.arange(2000) // 5
    wrong = round(400 * flipped)  # of each letter, a quarter of them for each other one: no luck in the source
    arrived = np.where(n < wrong, (sent + 1 + n % 4) % 5, sent)
    known = math.log(5) + flipped * math.log(flipped / 4) + (1 - flipped) * math.log(1 - flipped)
    found = probed_information(np.eye(5)[arrived], sent)
    mean, low, high = found.estimate()
    assert low < known < high
    assert mean == pytest.approx(known, abs=0.02)  # with a regression that is learned from 1,200 letters
    assert found.limit == pytest.approx(math.log(5), abs=0.01)


def test_probing_counts_classes_that_training_never_saw() -> None:
    """A class of one example costs its fold some nats, not infinitely many; one class alone carries nothing."""
    draws = np.random.default_rng(4)
    labels = np.repeat([0, 1, 2], [40, 40, 1])
    values = probed_information(labels[:, None] + 0.1 * draws.normal(size=(81, 2)), labels).values_N
    assert np.isfinite(values).all()
    assert values[-1] < 0 < values[:80].min()
    assert probed_information(draws.normal(size=(30, 2)), np.zeros(30, dtype=int)).estimate() == (0, 0, 0)


def test_the_same_seed_gives_the_same_bound() -> None:
    draws = np.random.default_rng(5)
    x, y = draws.normal(size=(2, 61, 3))
    for bound in (lambda: contrasted_information(x, y), lambda: probed_information(x, np.arange(61) % 3)):
        assert np.array_equal(bound().values_N, bound().values_N)
