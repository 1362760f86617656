"""Tasks of other systems: what holds for every task, with few examples each; `test_every_task` tries the others."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from lightning_metatok.data.blocks import TokenStore
from lightning_metatok.data.examples import ANSWER, CLOSES, META, OPENS
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.tasks import LEVELS, OF_OTHERS, TASKS, Task, build
from lightning_metatok.tasks.marks import remove_marks
from tests.tasks.others import Known
from tests.tasks.others.grammar import GRAMMAR
from tests.tasks.others.planted_and_depo import PLANTED_AND_DEPO
from tests.tasks.others.recall import RECALL
from tests.tasks.others.reckoning import RECKONING
from tests.tasks.others.strings import STRINGS
from tests.tasks.reading import questions

KNOWN: dict[str, Known] = {**STRINGS, **PLANTED_AND_DEPO, **RECKONING, **RECALL, **GRAMMAR}
NAMES = [task.name for task in OF_OTHERS]
RENDERINGS = ("symbols", "text")
Make = Callable[..., Task]


@pytest.fixture(scope="session")
def make(tokenizer: MetaTokenizer, haystack: TokenStore) -> Make:
    """A task in either rendering; its words are encoded once."""

    @cache
    def default(name: str, rendering: str) -> Task:
        return build(name, rendering=rendering, tokenizer=tokenizer, haystack=haystack)

    return lambda name, rendering="symbols", **options: replace(default(name, rendering), **options)


def test_each_has_a_reader() -> None:
    assert set(KNOWN) == set(NAMES)


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("name", NAMES)
def test_a_second_reader_finds_the_same_answers(name: str, rendering: str, make: Make) -> None:
    if rendering not in TASKS[name].renderings:
        pytest.skip(f"{name} has no {rendering}")
    levels = [{"level": level} for level in LEVELS]
    for options in ({}, *KNOWN[name].more, *levels):
        n = 30 if options in levels else 100
        task = make(name, rendering, placement="every", **options)
        examples = task.examples(n, 1)
        asked = 0
        for prompt, answer in questions(task, examples):
            assert KNOWN[name].solve(prompt, rendering) == answer, prompt
            asked += 1
        assert asked >= n
        if options in levels:
            low, high = LEVELS[options["level"]]
            assert low < examples.lengths.min() <= examples.lengths.max() <= high
            assert np.ptp(examples.lengths) >= (high - low) / 4


@pytest.mark.parametrize("name", [name for name in NAMES if KNOWN[name].share < 1])
def test_no_constant_guess_is_often_right(name: str, make: Make) -> None:
    task = make(name)
    for split in ("train", "test"):
        answers = [answer for _, answer in questions(task, task.examples(400, 5, split))]
        assert max(Counter(answers).values()) <= KNOWN[name].share * len(answers)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_placements_and_marks(name: str, make: Make, tokenizer: MetaTokenizer) -> None:
    for rendering in TASKS[name].renderings:
        plain = make(name, rendering, placement="none").examples(20, 3)
        assert not (plain.flags & META).any()
        slots = ((plain.flags & OPENS) > 0).sum() + ((plain.flags & CLOSES) > 0).sum()
        for placement in ("hint", "every", "random"):
            task = make(name, rendering, placement=placement, coupled=True)
            marked = task.examples(20, 3)
            bare = remove_marks(marked)
            np.testing.assert_array_equal(bare.tokens, plain.tokens)
            np.testing.assert_array_equal(bare.flags, plain.flags)
            count = ((marked.flags & META) > 0).sum()
            assert 0 < count == slots if placement == "every" else placement == "random" or 0 < count <= slots
            alone = task.examples(4, 3, start=9)  # the same alone and in a batch
            np.testing.assert_array_equal(alone.tokens, marked.take(np.arange(9, 13)).tokens)
            np.testing.assert_array_equal(alone.position_ids, marked.take(np.arange(9, 13)).position_ids)
            if rendering == "text" and task.reencodes:
                for i in range(20):
                    assert tokenizer.encode_prompt(task.text(marked[i])) == marked[i].tokens.tolist()
        for mark in TASKS[name].question_marks[1:]:
            asked = make(name, rendering, placement="every", question_mark=mark).examples(20, 3)
            np.testing.assert_array_equal(remove_marks(asked).tokens, plain.tokens)
            added = ((asked.flags & META) > 0).sum() - slots
            starts = np.diff((plain.flags & ANSWER) > 0, prepend=False) & ((plain.flags & ANSWER) > 0)
            assert added == starts.sum()


@pytest.mark.parametrize("name", NAMES)
def test_splits_lengths_and_scores(name: str, make: Make) -> None:
    task = build(name, placement="none", **KNOWN[name].few)

    def prompts(seed: int, split: str) -> set[str]:
        examples = task.examples(500, seed, split)
        return {task.text(examples[i]) for i in range(len(examples))}

    train, again, test = prompts(0, "train"), prompts(1, "train"), prompts(0, "test")
    assert train & again
    assert not (train | again) & test

    task = make(name)
    twice = task.longer(2).examples(8, 0)
    assert set(twice.slices[task.size_field]) == {2 * task.total_size[1]}
    example = task.examples(1, 0)[0]
    assert task.score(example.answer, example).exact
    assert not task.score(example.answer[:-1], example).exact


@pytest.mark.parametrize("name", NAMES)
def test_options_that_cannot_work_are_refused_in_a_line(name: str, make: Make) -> None:
    size = TASKS[name].size_field
    general = {
        rf"{size}=\[5, 2\]: expected two integers": {size: (5, 2)},
        r"level=hrad: expected one of medium": {"level": "hrad"},
        **({"pool=0: expected an integer": {"pool": 0}} if "pool" in TASKS[name].__dataclass_fields__ else {}),
    }
    for message, options in {**general, **KNOWN[name].wrong}.items():
        with pytest.raises(UserError, match=rf"^data\.task_options\.{message}") as refused:
            build(name, **options)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("inverse", [False, True])
def test_recopy_and_back(inverse: bool, backwards: bool, make: Make) -> None:
    task = make("recopy", inverse=inverse, backwards=backwards, pool=10)
    for prompt, answer in questions(task, task.examples(100, 0)):
        string, other = prompt.removesuffix(" ?").split(), answer.removesuffix(" ]").split()
        if backwards:
            other = other[::-1]
        short, long = (other, string) if inverse else (string, other)
        expected = [item for item in short for _ in range((1, 3, 5)[int(item[1:]) % 3])]
        # A string of the inverse task ends where its size says.
        assert expected[: len(long)] == long if inverse else expected == long


@pytest.mark.parametrize("name", ["repeating", "reverse", "sort", "dedupe", "position_retrieval", "recopy"])
def test_coupled_ids_of_an_answer_are_those_of_what_it_repeats(name: str, make: Make) -> None:
    examples = make(name, placement="none", coupled=True).examples(30, 0)
    for i in range(30):
        example = examples[i]
        at = slice(*examples.offsets[i : i + 2])
        ids, answers = examples.position_ids[at], (example.flags & ANSWER) > 0
        of_string = dict(zip(ids[~answers], example.tokens[~answers], strict=True))
        assert ids[answers][-1] == 0
        assert [of_string[id] for id in ids[answers][:-1]] == example.answer[:-1].tolist()


def test_only_planted_bits_change_the_label_and_each_of_them_does(make: Make) -> None:
    """The label is found again by a reader after any one item was changed."""
    solve = KNOWN["planted"].solve
    for k in (1, 2, 5):
        task = make("planted", placement="none", n_planted=k, n_items=(12, 12))
        for prompt, label in questions(task, task.examples(20, 0)):
            words = prompt.removesuffix(" ?").split()
            assert sum(word in ("zero", "one") for word in words) == k
            for i, word in enumerate(words):
                flipped = {"zero": "one", "one": "zero"}.get(word, "a0" if word != "a0" else "a1")
                changed = " ".join([*words[:i], flipped, *words[i + 1 :]]) + " ?"
                assert (solve(changed, "symbols") != label) == (word in ("zero", "one"))
