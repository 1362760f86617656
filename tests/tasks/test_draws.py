"""Choices depend on (seed, split, number, attempt, purpose) alone, and are uniform within their limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from lightning_metatok.tasks.draws import Draws


@given(seed=st.integers(0, 2**64 - 1), start=st.integers(0, 2**40), attempt=st.integers(0, 200))
def test_choices_of_an_example_do_not_depend_on_the_others(seed: int, start: int, attempt: int) -> None:
    together = Draws(seed, "train", start + np.arange(5), attempt)
    alone = Draws(seed, "train", [start + 3], attempt)
    np.testing.assert_array_equal(together.bits("x", 2, 3)[3:4], alone.bits("x", 2, 3))
    np.testing.assert_array_equal(together.choose("x", 3, 9)[3:4], alone.choose("x", 3, 9))
    present_nm = np.arange(6) < np.array([[1], [2], [3], [4], [5]])
    np.testing.assert_array_equal(together.shuffle("x", present_nm)[3:4], alone.shuffle("x", present_nm[3:4]))


def test_more_columns_leave_the_first_ones_as_they_were() -> None:
    # Others in the batch may need more columns: that must not change an example.
    draws = Draws(0, "train", np.arange(20))
    np.testing.assert_array_equal(draws.bits("x", 4), draws.bits("x", 9)[:, :4])
    np.testing.assert_array_equal(draws.integers("x", 0, 5, 4, 3), draws.integers("x", 0, 5, 9, 3)[:, :4])
    np.testing.assert_array_equal(draws.choose("x", 2, 30), draws.choose("x", 7, 30)[:, :2])
    np.testing.assert_array_equal(draws.choose("x", 2, 30, 4), draws.choose("x", 2, 30, 9)[:, :4])
    here = np.arange(4) < 3
    wide = np.arange(9) < 3
    np.testing.assert_array_equal(
        draws.shuffle("x", np.tile(here, (20, 1)))[:, :3], draws.shuffle("x", np.tile(wide, (20, 1)))[:, :3]
    )


@pytest.mark.parametrize(
    "other", [(1, "train", 0, "x"), (0, "test", 0, "x"), (0, "train", 1, "x"), (0, "train", 0, "y")]
)
def test_seed_split_attempt_and_purpose_all_matter(other: tuple[int, str, int, str]) -> None:
    seed, split, attempt, purpose = other
    ours = Draws(0, "train", np.arange(100)).bits("x")
    theirs = Draws(seed, split, np.arange(100), attempt).bits(purpose)
    assert not np.isin(ours, theirs).any()


def test_integers_are_uniform_from_low_to_high_both_included() -> None:
    draws = Draws(0, "train", np.arange(2000))
    counts = np.bincount(draws.integers("x", 3, 7, 4).reshape(-1), minlength=8)
    assert counts[:3].sum() == 0
    assert chisquare(counts[3:]).pvalue > 1e-3
    low_n1, high_n1 = np.arange(2000)[:, None], np.arange(2000)[:, None] + np.arange(2000)[:, None] % 3
    drawn_n4 = draws.integers("x", low_n1, high_n1, 4)
    assert drawn_n4.shape == (2000, 4)
    assert ((drawn_n4 >= low_n1) & (drawn_n4 <= high_n1)).all()
    assert (drawn_n4 == high_n1).any(axis=1).mean() > 0.5


def test_chosen_numbers_are_different_and_equally_likely() -> None:
    draws = Draws(0, "train", np.arange(3000))
    chosen_nk = draws.choose("x", 3, 8)
    assert all(len(set(row)) == 3 for row in chosen_nk.tolist())
    assert chisquare(np.bincount(chosen_nk[:, 0], minlength=8)).pvalue > 1e-3
    assert chisquare(np.bincount(chosen_nk[:, 2], minlength=8)).pvalue > 1e-3
    assert draws.choose("x", 3, 8, 5).shape == (3000, 5, 3)


def test_choices_are_the_order_of_their_bits_and_are_made_where_they_are_wanted() -> None:
    draws = Draws(0, "train", np.arange(90))  # more choices than are made at once
    where = np.random.default_rng(0).random((90, 5)) < 0.6
    everywhere = np.argsort(draws.bits("x", 5, 40), axis=-1)[..., :7]
    np.testing.assert_array_equal(draws.choose("x", 7, 40, 5), everywhere)
    np.testing.assert_array_equal(draws.choose("x", 7, 40, 5, where=where), np.where(where[..., None], everywhere, 0))
    anew = Draws(0, "train", np.arange(90), anew=["x"])
    assert not (anew.choose("x", 7, 40, 5, where=where) == everywhere)[where].all(axis=-1).any()


def test_a_shuffle_puts_what_is_present_first() -> None:
    present_nm = np.random.default_rng(0).random((3000, 4)) < 0.6
    order_nm = Draws(0, "train", np.arange(3000)).shuffle("x", present_nm)
    np.testing.assert_array_equal(np.sort(order_nm, axis=1), np.tile(np.arange(4), (3000, 1)))
    for order, present in zip(order_nm, present_nm, strict=True):
        k = present.sum()
        assert set(order[:k]) == set(np.flatnonzero(present))
    firsts = order_nm[present_nm.all(axis=1), 0]
    assert chisquare(np.bincount(firsts, minlength=4)).pvalue > 1e-3
