"""A mark in the question stands where the option says, in every task, and changes nothing else of a prompt."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from lightning_metatok.data.blocks import TokenStore
from lightning_metatok.data.examples import ANSWER, META, Examples
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.tasks import RECALL, TASKS, Task, build
from lightning_metatok.tasks.marks import answers_before_marks, marks_before, marks_of_question, put_marks, remove_marks
from lightning_metatok.tasks.pairs import make_pairs
from tests.tasks.facts import facts
from tests.tasks.reading import count_disagreements

NAMES = [task.name for task in RECALL]
MARK = "<|meta|>"
RENDERINGS = ("symbols", "text")
ASKED = [(name, mark) for name in NAMES for mark in TASKS[name].question_marks if mark != "none"]
"""Every task with every place in its question."""
Make = Callable[..., Task]


@pytest.fixture(scope="module")
def make(tokenizer: MetaTokenizer, haystack: TokenStore) -> Make:
    """A task with what text needs."""

    @cache
    def default(name: str, rendering: str) -> Task:
        return build(name, rendering=rendering, tokenizer=tokenizer, haystack=haystack)

    return lambda name, rendering="symbols", **options: replace(default(name, rendering), **options)


def with_marks(text: str, name: str, rendering: str, mark: str) -> str:
    """The text of a prompt with a mark in each of its questions, found by reading."""
    sign, pattern = facts(name).questions[rendering]
    at = text.index(sign)
    question = text[at:]
    places = [
        match.start("answer") if mark == "before_answer" else match.end("key")
        for match in re.finditer(pattern, question)
    ]
    assert places
    for place in reversed(places):
        question = question[:place] + (MARK if rendering == "text" else f" {MARK} ") + question[place:]
    return text[:at] + question


def assert_same(ours: Examples, theirs: Examples) -> None:
    for name in ("tokens", "flags", "offsets", "position_ids"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


def test_all_tasks_but_arithmetic_ask_about_a_key() -> None:
    assert {name for name, mark in ASKED if mark == "before_answer"} == set(NAMES)
    keyless = {name for name in NAMES if "key" not in facts(name).questions["text"][1]}
    assert {name for name, mark in ASKED if mark == "after_key"} == set(NAMES) - keyless


@pytest.mark.parametrize("placement", ["hint", "every", "random"])
@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize(("name", "mark"), ASKED)
def test_a_mark_stands_exactly_where_the_option_says(
    name: str, mark: str, rendering: str, placement: str, make: Make
) -> None:
    for options in ({}, facts(name).many):
        task = make(name, rendering, placement=placement, question_mark=mark, **options)
        without = replace(task, question_mark="none")
        marked, plain = task.examples(60, 0), without.examples(60, 0)
        for i in range(60):
            expected, text = with_marks(task.text(plain[i]), name, rendering, mark), task.text(marked[i])
            if rendering == "text":
                assert text == expected
            else:
                assert text.split() == expected.split()
        assert marks_of_question(marked).sum() == (marked.flags & META > 0).sum() - (plain.flags & META > 0).sum()
        assert not marks_of_question(plain).any()


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize(("name", "mark"), ASKED)
def test_without_its_marks_a_prompt_is_the_one_without_the_option(
    name: str, mark: str, rendering: str, coupled: bool, make: Make
) -> None:
    for placement in ("hint", "every", "random"):
        task = make(name, rendering, placement=placement, coupled=coupled, question_mark=mark, **facts(name).many)
        without = replace(task, question_mark="none")
        marked, plain = task.examples(60, 0), without.examples(60, 0)
        assert_same(remove_marks(marked), remove_marks(plain))
        # Marks of the body stay where they are, and so do what is scored and what accuracy is split by.
        kept = ~marks_of_question(marked)
        np.testing.assert_array_equal(marked.tokens[kept], plain.tokens)
        np.testing.assert_array_equal(
            marked.tokens[(marked.flags & ANSWER) > 0], plain.tokens[(plain.flags & ANSWER) > 0]
        )
        assert marked.slices.keys() == plain.slices.keys()
        for key, values in plain.slices.items():
            if key != "length":
                np.testing.assert_array_equal(marked.slices[key], values, err_msg=key)
        again = put_marks(remove_marks(marked), marks_before(marked), task.lexicon.tokenizer.meta_id)
        assert_same(again, marked)
        assert count_disagreements(task, marked)[0] == 0


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize(("name", "mark"), ASKED)
def test_without_marks_in_the_body_the_question_has_none(name: str, mark: str, rendering: str, make: Make) -> None:
    without = make(name, rendering, placement="none")
    assert_same(replace(without, question_mark=mark).examples(30, 0), without.examples(30, 0))


@pytest.mark.parametrize(("name", "mark"), [(name, mark) for name, mark in ASKED if TASKS[name].reencodes])
def test_encoding_the_text_of_a_prompt_gives_its_tokens(
    name: str, mark: str, make: Make, tokenizer: MetaTokenizer
) -> None:
    task = make(name, "text", placement="every", question_mark=mark)
    examples = task.examples(100, 0)
    for i in range(100):
        assert tokenizer.encode_prompt(task.text(examples[i])) == examples[i].tokens.tolist()


@pytest.mark.parametrize(("name", "mark"), [(name, mark) for name, mark in ASKED if TASKS[name].content_draws])
def test_pairs_have_the_same_marks_in_their_questions(name: str, mark: str, make: Make) -> None:
    options: dict[str, Any] = dict(facts(name).pairs or {})
    task = make(name, placement="every", question_mark=mark, **options)
    without = replace(task, question_mark="none")
    for marked, plain in zip(make_pairs(task, 16, seed=0), make_pairs(without, 16, seed=0), strict=True):
        assert_same(remove_marks(marked), remove_marks(plain))
        assert (np.bincount(marked.rows(), weights=marks_of_question(marked)) == 1).all()


@pytest.mark.parametrize("name", ["addition", "multiplication"])
def test_a_question_about_no_key_refuses_a_mark_behind_it(name: str) -> None:
    expected = (
        rf"^data\.task_options\.question_mark=after_key: expected one of none, before_answer; {name} asks about no"
    )
    with pytest.raises(UserError, match=expected) as refused:
        build(name, question_mark="after_key")
    assert "\n" not in str(refused.value)


def test_an_unknown_place_gets_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"question_mark=after_keys: expected one of .*did you mean 'after_key'\?"):
        build("parity", question_mark="after_keys")


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("name", NAMES)
def test_where_marks_do_not_count_a_level_has_the_same_prompts_in_every_placement(
    name: str, rendering: str, make: Make
) -> None:
    plain = make(name, rendering, placement="none", level="medium", marks_count=False).examples(60, 0)
    np.testing.assert_array_equal(
        plain.tokens, make(name, rendering, placement="none", level="medium").examples(60, 0).tokens
    )
    for placement in ("hint", "every", "random"):
        for mark in TASKS[name].question_marks:
            options = {"placement": placement, "question_mark": mark, "level": "medium"}
            assert_same(remove_marks(make(name, rendering, marks_count=False, **options).examples(60, 0)), plain)


@pytest.mark.parametrize("name", TASKS)
def test_no_answer_stands_before_the_first_mark(name: str, make: Make) -> None:
    """So that a pattern which reads all before it in both directions (prefix_lm) gives no answer away."""
    for placement in TASKS[name].placements:
        for mark in TASKS[name].question_marks:
            examples = make(name, placement=placement, question_mark=mark).examples(30, 0)
            assert not answers_before_marks(examples).any(), (placement, mark)


def test_an_answer_before_the_first_mark_is_found() -> None:
    """Marks: none, before the answer, behind its first token, and before and behind it."""
    A, M = int(ANSWER), int(META)
    prompts = ([0, A, A], [0, M, A, A], [0, A, M, A], [M, A, M])
    flags = np.concatenate([np.array(prompt, dtype=np.uint8) for prompt in prompts])
    offsets = np.cumsum([0, *map(len, prompts)])
    examples = Examples(np.zeros(len(flags), dtype=np.int32), flags, offsets)
    assert answers_before_marks(examples).tolist() == [False, False, True, False]
