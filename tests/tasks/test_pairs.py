"""Pairs differ in the target segment and the answer alone, and both prompts are ones that the task could have made."""

from typing import Any

import numpy as np
import pytest

from lightning_metatok.data.examples import ANSWER, META
from lightning_metatok.errors import UserError
from lightning_metatok.tasks import RECALL, TASKS, build
from lightning_metatok.tasks.lexicon import symbol_tokenizer
from lightning_metatok.tasks.pairs import in_target, make_pairs
from tests.tasks.facts import facts
from tests.tasks.reading import count_disagreements

NAMES = [task.name for task in RECALL]
OPTIONS = {name: options for name in NAMES if (options := facts(name).pairs) is not None}
N = 40


def make(name: str, placement: str = "every") -> Any:
    places = TASKS[name].placements
    return build(
        name,
        tokenizer=symbol_tokenizer(),
        rendering="symbols",
        placement=placement if placement in places else places[0],
        **OPTIONS.get(name, {}),
    )


def test_every_task_with_segments_is_tried() -> None:
    assert set(OPTIONS) == {name for name in NAMES if TASKS[name].content_draws}


@pytest.mark.parametrize("name", OPTIONS)
def test_pairs_differ_in_the_target_and_the_answer_alone(name: str) -> None:
    clean, corrupted = make_pairs(make(name), N, seed=0)
    assert len(clean) == len(corrupted) == N
    assert np.array_equal(clean.flags, corrupted.flags)
    assert np.array_equal(clean.offsets, corrupted.offsets)
    differs = clean.tokens != corrupted.tokens
    answers = (clean.flags & ANSWER) > 0
    assert not (differs & ~answers & ~in_target(clean)).any()
    for what in (answers, in_target(clean)):  # each pair differs in both
        assert (np.bincount(clean.rows(), weights=differs & what, minlength=N) > 0).all()
    assert not (in_target(clean) & ((clean.flags & META) > 0)).any()


@pytest.mark.parametrize("name", OPTIONS)
def test_a_second_reader_finds_both_answers(name: str) -> None:
    task = make(name)
    for examples in make_pairs(task, N, seed=1):
        assert count_disagreements(task, examples)[0] == 0


def test_a_task_without_segments_says_so_in_one_line() -> None:
    with pytest.raises(UserError, match=r"data.task=addition has no segment") as caught:
        make_pairs(make("addition"), N, seed=0)
    assert "\n" not in str(caught.value)
