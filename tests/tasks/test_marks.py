"""Marks can be put, taken away and moved without the task: exactly so many, at the places that the flags allow."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from lightning_metatok.data.examples import (
    BODY,
    CLOSES,
    CLOSES_TARGET,
    META,
    OPENS,
    OPENS_TARGET,
    Examples,
)
from lightning_metatok.tasks import build
from lightning_metatok.tasks.marks import (
    at_random,
    at_slots,
    at_wrong_segments,
    marks_before,
    place,
    put_marks,
    remove_marks,
)

META_ID = 1


def bare(lengths: list[int], n_body: list[int] | None = None) -> Examples:
    """Prompts without marks, token j of all of them being 2 + j; the first `n_body` tokens of each are its body."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    column = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    in_body = column < np.repeat(lengths if n_body is None else n_body, lengths)
    tokens = np.arange(2, 2 + offsets[-1]).astype(np.int32)
    return Examples(tokens, np.where(in_body, BODY, 0).astype(np.uint8), offsets, {"length": np.array(lengths)})


def assert_same(ours: Examples, theirs: Examples) -> None:
    for name in ("tokens", "flags", "offsets"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype
    np.testing.assert_array_equal(ours.slices["length"], theirs.slices["length"])


@st.composite
def prompts_and_marks(draw: Any) -> tuple[Examples, NDArray[np.int64]]:
    examples = bare(draw(st.lists(st.integers(1, 12), min_size=1, max_size=5)))
    m = len(examples.tokens)
    return examples, np.array(draw(st.lists(st.integers(0, 3), min_size=m, max_size=m)), dtype=np.int64)


@given(prompts_and_marks())
def test_marks_are_put_read_and_taken_away_again(drawn: tuple[Examples, NDArray[np.int64]]) -> None:
    examples, before = drawn
    marked = put_marks(examples, before, META_ID)
    assert_same(remove_marks(marked), examples)
    np.testing.assert_array_equal(marks_before(marked), before)
    np.testing.assert_array_equal(marked.tokens == META_ID, (marked.flags & META) > 0)
    np.testing.assert_array_equal(marked.slices["length"], marked.lengths)
    for i in range(len(examples)):
        piece = slice(examples.offsets[i], examples.offsets[i + 1])
        expected = [
            id
            for token, count in zip(examples.tokens[piece], before[piece], strict=True)
            for id in [META_ID] * count + [token]
        ]
        assert marked[i].tokens.tolist() == expected


def test_marks_of_every_placement_survive_the_way_there_and_back() -> None:
    for placement in ("hint", "every", "after", "random", "none"):
        examples = build("list_recall", placement=placement).examples(50, 0)
        assert_same(put_marks(remove_marks(examples), marks_before(examples), META_ID), examples)


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    seed=st.integers(0, 2**64 - 1),
    data=st.data(),
)
def test_random_marks_are_as_many_as_asked_at_different_places_of_the_body(
    lengths: list[int], seed: int, data: Any
) -> None:
    n = len(lengths)
    n_body = [data.draw(st.integers(0, length)) for length in lengths]
    count_n = np.array([data.draw(st.integers(0, 25)) for _ in lengths])
    index_n = np.array(data.draw(st.lists(st.integers(0, 2**40), min_size=n, max_size=n)))
    examples = bare(lengths, n_body)
    before = at_random(examples, count_n, seed, index_n)
    assert set(before) <= {0, 1}
    assert before[(examples.flags & BODY) == 0].sum() == 0
    per_prompt = np.bincount(examples.rows(), weights=before, minlength=n)
    np.testing.assert_array_equal(per_prompt, np.minimum(count_n, n_body))
    # A pure function of (seed, index): the same for a prompt alone.
    alone = at_random(examples.take([n - 1]), count_n[-1:], seed, index_n[-1:])
    np.testing.assert_array_equal(alone, before[examples.offsets[-2] :])


def test_random_marks_are_equally_likely_before_every_token_of_the_body() -> None:
    examples = bare([10] * 3000, [8] * 3000)
    before = at_random(examples, np.full(3000, 2), 0, np.arange(3000)).reshape(3000, 10)
    # Places of one prompt exclude each other, which makes the statistic smaller, never larger.
    assert chisquare(before.sum(axis=0)[:8]).pvalue > 1e-3
    other = at_random(examples, np.full(3000, 2), 1, np.arange(3000)).reshape(3000, 10)
    assert 0.01 < (other == before).all(axis=1).mean() < 0.1  # 1 in 28 by chance


def slots(*segments: tuple[bool, ...]) -> Examples:
    """One prompt an argument: three tokens a segment, which opens before its second and closes before its third."""
    flags = [
        np.array(
            [BODY, BODY | OPENS | (OPENS_TARGET * is_target), BODY | CLOSES | (CLOSES_TARGET * is_target)],
            dtype=np.uint8,
        )
        for targets in segments
        for is_target in targets
    ]
    examples = bare([3 * len(targets) for targets in segments])
    return Examples(examples.tokens, np.concatenate(flags), examples.offsets, examples.slices)


@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=8), min_size=1, max_size=5),
    st.integers(0, 2**64 - 1),
)
def test_a_hint_that_lies_marks_as_many_segments_but_no_target(targets: list[list[bool]], seed: int) -> None:
    examples = slots(*(tuple(of_prompt) for of_prompt in targets))
    wrong = at_wrong_segments(examples, seed, np.arange(len(targets)))
    right = at_slots(examples, target_only=True)
    is_target = (examples.flags & (OPENS_TARGET | CLOSES_TARGET)) > 0
    rows = examples.rows()
    for i, of_prompt in enumerate(targets):
        here = rows == i
        n_targets = sum(of_prompt)
        assert wrong[here].sum() == right[here].sum() == 2 * n_targets
        if len(of_prompt) - n_targets >= n_targets:
            assert wrong[here & is_target].sum() == 0
        # A segment is marked at both ends or at none: the marks before its three tokens.
        first, opens, closes = wrong[here].reshape(-1, 3).T
        assert first.sum() == 0
        np.testing.assert_array_equal(opens, closes)
    np.testing.assert_array_equal(wrong, at_wrong_segments(examples, seed, np.arange(len(targets))))


def test_a_hint_that_lies_is_spread_over_the_other_segments() -> None:
    n = 2000
    wrong = at_wrong_segments(slots(*[(False, True, False, False, False)] * n), 0, np.arange(n))
    opened = wrong.reshape(n, 5, 3)[:, :, 1].sum(axis=0)
    assert opened[1] == 0
    assert chisquare(opened[[0, 2, 3, 4]]).pvalue > 1e-3


def test_a_task_of_one_segment_keeps_its_hint() -> None:
    examples = slots((True,))
    np.testing.assert_array_equal(at_wrong_segments(examples, 0, np.arange(1)), at_slots(examples, target_only=True))


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        ("none", [0, 0, 0, 0, 0, 0]),
        ("hint", [0, 0, 0, 0, 1, 1]),
        ("every", [0, 1, 1, 0, 1, 1]),
        ("after", [0, 0, 1, 0, 0, 1]),
    ],
)
def test_placements_put_marks_at_slots(placement: Any, expected: list[int]) -> None:
    examples = slots((False, True))
    placed = place(examples, placement, fraction=0.1, meta_id=META_ID, seed=0, index_n=np.arange(1))
    np.testing.assert_array_equal(marks_before(placed), expected)


def test_a_slot_that_closes_one_segment_and_opens_the_next_gets_two_marks() -> None:
    examples = bare([3])
    flags = examples.flags | np.array([OPENS, CLOSES | OPENS, CLOSES], dtype=np.uint8)
    both = Examples(examples.tokens, flags, examples.offsets, examples.slices)
    np.testing.assert_array_equal(at_slots(both, target_only=False), [1, 2, 1])


@pytest.mark.parametrize(("fraction", "expected"), [(0.1, 10), (0.25, 30), (0.5, 90)])
def test_the_share_of_random_marks_counts_the_marks_too(fraction: float, expected: int) -> None:
    examples = bare([100], [90])
    placed = place(examples, "random", fraction=fraction, meta_id=META_ID, seed=0, index_n=np.arange(1))
    marks = (placed.flags & META) > 0
    assert marks.sum() == expected
    assert marks.sum() / (marks.sum() + 90) == pytest.approx(fraction)


def test_a_mark_has_the_position_of_its_segment_s_first_or_last_token() -> None:
    for placement in ("hint", "every"):
        task = build("list_recall", placement=placement, coupled=True)
        examples = task.examples(50, 0)
        assert examples.position_ids is not None
        for i in range(50):
            words = task.text(examples[i]).split()
            ids = examples.position_ids[examples.offsets[i] : examples.offsets[i + 1]].tolist()
            bare = [id for word, id in zip(words, ids, strict=True) if word != "<|meta|>"]
            assert bare == list(range(len(bare)))
            for at in (at for at, word in enumerate(words) if word == "<|meta|>"):
                opens = words[at - 1].startswith("L")  # behind the list's name
                assert ids[at] == ids[at + 1 if opens else at - 1]
    loose = build("list_recall", placement="random", coupled=True).examples(20, 0)
    assert loose.position_ids is not None
    marks = np.flatnonzero(loose.flags & META)
    beside = np.where(loose.flags[marks + 1] & CLOSES, marks - 1, marks + 1)  # chance may close a segment, too
    np.testing.assert_array_equal(loose.position_ids[marks], loose.position_ids[beside])


def test_ids_survive_moving_marks_saving_and_batching(tmp_path: Path) -> None:
    task = build("addition", placement="every", coupled=True)
    examples = task.examples(30, 0)
    again = put_marks(remove_marks(examples), marks_before(examples), task.lexicon.tokenizer.meta_id)
    np.testing.assert_array_equal(again.position_ids, examples.position_ids)
    examples.save(tmp_path)
    np.testing.assert_array_equal(Examples.load(tmp_path).position_ids, examples.position_ids)
    batch = examples.batch([3, 7])
    for row, i in enumerate((3, 7)):
        part = slice(*examples.offsets[i : i + 2])
        ids = batch.position_ids_BT[row].numpy()
        np.testing.assert_array_equal(ids[: examples.lengths[i]], examples.position_ids[part])  # type: ignore[index]
        assert (ids[examples.lengths[i] :] == 0).all()
