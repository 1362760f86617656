"""The hash behind every random choice: pinned, because it decides what a resumed run sees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from lightning_metatok.data.counter import BLOCK, mix, permutation, random_bits


def test_the_finaliser_is_that_of_splitmix64() -> None:
    # First outputs of the reference SplitMix64 generator from state 0: mix(1 * golden), mix(2 * golden).
    golden = 0x9E3779B97F4A7C15
    states = np.array([golden, 2 * golden % 2**64], dtype=np.uint64)
    assert [hex(value) for value in mix(states)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]


def test_the_order_of_blocks_stays_what_it_was() -> None:
    assert permutation(8, seed=1337, counter=0).tolist() == [4, 3, 5, 0, 6, 2, 1, 7]


@given(st.integers(1, 300), st.integers(0, 2**64 - 1), st.integers(0, 100))
def test_a_permutation_holds_every_number_once(n: int, seed: int, counter: int) -> None:
    assert sorted(permutation(n, seed, counter).tolist()) == list(range(n))


def test_first_places_of_permutations_are_uniform_over_epochs() -> None:
    first = [int(permutation(10, seed=5, counter=epoch)[0]) for epoch in range(3000)]
    assert chisquare(np.bincount(first, minlength=10)).pvalue > 1e-3  # a fixed seed: a fixed outcome


def test_seed_and_counters_do_not_stand_in_for_each_other() -> None:
    values = {int(random_bits(*key)[0]) for key in [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0), (1, 1, 0)]}
    assert len(values) == 5


@pytest.mark.parametrize("n", [1, BLOCK - 1, BLOCK, 2 * BLOCK + 5])
def test_many_numbers_are_mixed_as_one_is_and_stay_as_they_were(n: int) -> None:
    values = np.random.default_rng(0).integers(2**64, size=(n, 2), dtype=np.uint64)
    before = values.copy()
    mixed = mix(values)
    np.testing.assert_array_equal(values, before)
    assert mixed.shape == values.shape
    for row in (0, n // 2, n - 1):
        for column in (0, 1):
            z = int(values[row, column])
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
            assert int(mixed[row, column]) == z ^ (z >> 31)
