"""Conditions change the marks and nothing else, always in the same way."""

import numpy as np
import pytest

from lightning_metatok import tasks
from lightning_metatok.data.examples import BODY, CLOSES, CLOSES_TARGET, META, OPENS_TARGET, Examples
from lightning_metatok.lit.answers.conditions import FULL, MarkCondition, Marks
from lightning_metatok.tasks.marks import marks_before, marks_of_question, remove_marks

SIZES = {"n_lists": (2, 4), "list_length": (2, 5), "pool": 12}


def prompts(placement: str = "hint") -> tuple[Examples, int]:
    task = tasks.build("list_recall", placement=placement, mark_fraction=0.2, **SIZES)
    return task.examples(300, seed=3, split="test"), task.lexicon.tokenizer.meta_id


def changed(examples: Examples, meta_id: int, marks: Marks) -> Examples:
    return MarkCondition("x", "x", "marks", marks=marks).change(examples, meta_id)


def n_marks(examples: Examples) -> np.ndarray:
    return np.bincount(examples.rows()[(examples.flags & META) > 0], minlength=len(examples))


@pytest.mark.parametrize("placement", ["hint", "every", "random"])
@pytest.mark.parametrize("marks", ["random", "wrong_segment", "removed", "doubled"])
def test_items_stay_as_they_are(placement: str, marks: Marks) -> None:
    examples, meta_id = prompts(placement)
    disturbed = changed(examples, meta_id, marks)
    before, after = remove_marks(examples), remove_marks(disturbed)
    for name in ("tokens", "flags", "offsets"):
        assert np.array_equal(getattr(before, name), getattr(after, name))
    assert not np.array_equal(disturbed.tokens, examples.tokens)
    assert ((disturbed.tokens == meta_id) == ((disturbed.flags & META) > 0)).all()
    assert np.array_equal(changed(examples, meta_id, marks).tokens, disturbed.tokens)
    assert np.array_equal(disturbed.slices["length"], disturbed.lengths)


@pytest.mark.parametrize(("marks", "factor"), [("random", 1), ("removed", 0), ("doubled", 2)])
@pytest.mark.parametrize("placement", ["hint", "every", "random"])
def test_the_number_of_marks_is_as_named(placement: str, marks: Marks, factor: int) -> None:
    examples, meta_id = prompts(placement)
    assert np.array_equal(n_marks(changed(examples, meta_id, marks)), factor * n_marks(examples))


def test_doubled_marks_stand_where_single_ones_stood() -> None:
    examples, meta_id = prompts()
    assert np.array_equal(marks_before(changed(examples, meta_id, "doubled")), 2 * marks_before(examples))


def test_a_hint_lies_about_every_prompt_and_keeps_its_form() -> None:
    examples, meta_id = prompts()
    lying = changed(examples, meta_id, "wrong_segment")
    assert np.array_equal(n_marks(lying), n_marks(examples))
    bare, before = remove_marks(lying), marks_before(lying)
    opens, closes = (bare.flags & OPENS_TARGET) > 0, (bare.flags & CLOSES_TARGET) > 0
    # The start of the target is marked only where another segment ends there, its end only where another starts.
    assert (before[opens] <= 1).all()
    both_ends = np.bincount(bare.rows(), weights=before * opens) + np.bincount(bare.rows(), weights=before * closes)
    assert (both_ends < 2).all()


@pytest.mark.parametrize("placement", ["hint", "random"])
def test_moved_marks_stand_in_the_body_and_mostly_elsewhere(placement: str) -> None:
    examples, meta_id = prompts(placement)
    moved = changed(examples, meta_id, "random")
    in_body = (remove_marks(moved).flags & BODY) > 0
    before, after = marks_before(examples), marks_before(moved)
    assert (after[~in_body] == 0).all()
    # Two independent choices of about a fifth of the places (random) share about a fifth; the same choice would share
    # all. A hint has two fixed places, so that one of about twelve is hit by chance more rarely.
    shared = np.minimum(before, after).sum() / before.sum()
    assert shared < 0.35


ASKED = [(name, mark) for name in tasks.TASKS for mark in tasks.TASKS[name].question_marks if mark != "none"]


@pytest.mark.parametrize("placement", ["hint", "every", "random"])
@pytest.mark.parametrize(("name", "question"), ASKED)
def test_marks_of_the_question_follow_the_condition(name: str, question: str, placement: str) -> None:
    task = tasks.build(name, placement=placement, mark_fraction=0.2, question_mark=question)
    examples, meta_id = task.examples(100, seed=3, split="test"), task.lexicon.tokenizer.meta_id
    n_asked = marks_of_question(examples).sum()
    assert n_asked >= 100
    bare, before = remove_marks(examples), marks_before(examples)
    asking = (bare.flags & (BODY | CLOSES)) == 0
    for marks, factor in (("removed", 0), ("doubled", 2), ("random", 1), ("wrong_segment", 1)):
        disturbed = changed(examples, meta_id, marks)
        after = remove_marks(disturbed)
        for array in ("tokens", "flags", "offsets"):
            assert np.array_equal(getattr(bare, array), getattr(after, array))
        assert marks_of_question(disturbed).sum() == factor * n_asked
        assert np.array_equal(marks_before(disturbed)[asking], factor * before[asking])
        if marks != "wrong_segment":
            # A body of few tokens has room for no more marks than tokens.
            room = np.bincount(bare.rows(), weights=(bare.flags & BODY) > 0) + np.bincount(
                bare.rows(), weights=before * asking
            )
            expected = factor * n_marks(examples)
            assert np.array_equal(n_marks(disturbed), np.minimum(expected, room) if marks == "random" else expected)
        # The body is disturbed as it is without the option.
        alone = tasks.build(name, placement=placement, mark_fraction=0.2).examples(100, seed=3, split="test")
        assert np.array_equal(marks_before(changed(alone, meta_id, marks))[~asking], marks_before(disturbed)[~asking])


def test_full_changes_nothing() -> None:
    examples, meta_id = prompts()
    assert FULL.change(examples, meta_id) is examples
