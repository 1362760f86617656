"""The bigram model is a proper distribution, equals its formula, and does not depend on chunks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_metatok.analysis import bigram as module
from lightning_metatok.analysis.bigram import fit_bigram

streams = st.lists(st.integers(0, 5), min_size=2, max_size=60).map(lambda ids: np.array(ids, dtype=np.uint16))


@given(streams)
def test_every_row_is_a_distribution(tokens: np.ndarray) -> None:
    V = 7  # id 6 never occurs
    model = fit_bigram(tokens, V)
    h, w = (ids.reshape(-1) for ids in np.meshgrid(np.arange(V), np.arange(V), indexing="ij"))
    rows = np.exp(-model.nll(h, w)).reshape(V, V)
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-12)  # sums of 7 float64 terms


@given(streams)
def test_the_loss_is_that_of_the_formula(tokens: np.ndarray) -> None:
    V = 7
    pairs = list(zip(tokens.tolist(), tokens[1:].tolist(), strict=False))
    expected = []
    for h, w in pairs:
        unigram = (tokens.tolist().count(w) + 1) / (len(tokens) + V)
        followed = [b for a, b in pairs if a == h]
        distinct = len(set(followed))
        expected.append(-math.log((followed.count(w) + distinct * unigram) / (len(followed) + distinct)))
    found = fit_bigram(tokens, V).nll(tokens[:-1], tokens[1:])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = np.random.default_rng(0).integers(0, 50, 1000)
    whole = fit_bigram(tokens, 50).nll(tokens[:-1], tokens[1:])
    monkeypatch.setattr(module, "CHUNK", 64)
    np.testing.assert_array_equal(fit_bigram(tokens, 50).nll(tokens[:-1], tokens[1:]), whole)


def test_a_periodic_stream_is_almost_free_and_a_random_one_costs_its_entropy() -> None:
    periodic = np.arange(100_000) % 10
    assert fit_bigram(periodic, 10).nll(periodic[:-1], periodic[1:]).mean() < 1e-3
    uniform = np.random.default_rng(0).integers(0, 10, 200_000)
    held_out = np.random.default_rng(1).integers(0, 10, 50_000)
    loss = fit_bigram(uniform, 10).nll(held_out[:-1], held_out[1:]).mean()
    assert loss == pytest.approx(math.log(10), abs=1e-3)  # 100 pairs estimated from 2,000 each: about 2e-4 too much
