"""What holds for every task: answers that a second reader finds, one example a number, splits apart, marks in place."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from lightning_metatok.data.blocks import TokenStore
from lightning_metatok.data.examples import ANSWER, BODY, META, SOURCE, Examples
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.tasks import LEVELS, RECALL, TASKS, Task, build
from lightning_metatok.tasks.marks import remove_marks
from tests.tasks.facts import facts
from tests.tasks.facts.lists import NAME
from tests.tasks.reading import count_disagreements, n_marks, questions

NAMES = [task.name for task in RECALL]
RENDERINGS = ("symbols", "text")
PLACEMENTS = ("hint", "every", "random", "none")
Make = Callable[..., Task]


@pytest.fixture(scope="session")
def make(tokenizer: MetaTokenizer, haystack: TokenStore) -> Make:
    """A task with what text needs. All its words are encoded once, not for every set of options."""

    @cache
    def default(name: str, rendering: str) -> Task:
        return build(name, rendering=rendering, tokenizer=tokenizer, haystack=haystack)

    return lambda name, rendering="symbols", **options: replace(default(name, rendering), **options)


def assert_same(ours: Examples, theirs: Examples) -> None:
    for name in ("tokens", "flags", "offsets"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    assert ours.slices.keys() == theirs.slices.keys()
    for name, values in ours.slices.items():
        np.testing.assert_array_equal(values, theirs.slices[name], err_msg=name)


# -- answers: with the levels, at least 1,000 prompts of each task, rendering and placement


@pytest.mark.one_in(3)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("name", NAMES)
def test_a_second_reader_finds_the_same_answer(name: str, rendering: str, placement: str, make: Make) -> None:
    task = make(name, rendering, placement=placement)
    for split, seed in (("train", 1), ("test", 2)):
        wrong, n = count_disagreements(task, task.examples(375, seed, split))
        assert wrong == 0
        assert n >= 375


@pytest.mark.one_in(2)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_prompts_of_a_level_fall_into_its_bin_and_can_be_answered(name: str, level: str, make: Make) -> None:
    low, high = LEVELS[level]
    for seed, rendering in enumerate(RENDERINGS):
        for placement in PLACEMENTS:
            task = make(name, rendering, placement=placement, level=level)
            examples = task.examples(64, seed)
            assert low < examples.lengths.min()
            assert examples.lengths.max() <= high
            # Lengths are spread over the bin, not at one end of it.
            assert np.ptp(examples.lengths) > (high - low) / 4
            np.testing.assert_array_equal(examples.slices["length"], examples.lengths)
            wrong, _ = count_disagreements(task, examples)
            assert wrong == 0


@pytest.mark.parametrize("name", [name for name in NAMES if "n_queries" in TASKS[name].__dataclass_fields__])
@pytest.mark.parametrize("rendering", RENDERINGS)
def test_all_questions_of_a_prompt_are_answered_rightly(name: str, rendering: str, make: Make) -> None:
    options = {"n_labels": (1, 5)} if name == "parity" else {}
    task = make(name, rendering, placement="every", n_queries=3, **options)
    examples = task.examples(300, 0)
    wrong, n = count_disagreements(task, examples)
    assert wrong == 0
    assert n > 600
    once = task.asking_once()
    asked = 3 if name == "multi_query_recall" else 1
    assert len(list(questions(once, once.examples(30, 0)))) == 30 * asked


# -- numbers, seeds, splits


@pytest.mark.parametrize("placement", ["every", "random"])
@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_the_same_alone_in_a_batch_and_from_another_start(
    name: str, rendering: str, placement: str, make: Make
) -> None:
    task = make(name, rendering, placement=placement)
    together = task.examples(40, seed=3, start=100)
    assert_same(task.examples(25, seed=3, start=115), together.take(np.arange(15, 40)))
    order = np.random.default_rng(0).permutation(40)
    assert_same(task.numbered(100 + order, seed=3), together.take(order))
    for i in range(10):
        assert_same(task.examples(1, seed=3, start=100 + i), together.take([i]))


@pytest.mark.parametrize("name", NAMES)
def test_seeds_splits_and_numbers_give_different_examples(name: str, make: Make) -> None:
    task = make(name)
    prompts: list[str] = []
    for seed, split in ((0, "train"), (1, "train"), (0, "test")):
        examples = task.examples(100, seed, split)
        prompts += [task.text(examples[i]) for i in range(100)]
    assert len(set(prompts)) > 290  # prompts of a few bits may come twice


@pytest.mark.parametrize("name", NAMES)
def test_a_content_is_of_one_split_for_ever(name: str, make: Make) -> None:
    n, options, pattern = facts(name).few
    task = make(name, placement="none", **options)

    def contents(seed: int, split: str) -> set[str]:
        examples = task.examples(n, seed, split)
        texts = (task.text(examples[i]) for i in range(n))
        return {" ".join(match.group() for match in re.finditer(pattern, text)) for text in texts}

    train, train_again, test = contents(0, "train"), contents(1, "train"), contents(0, "test")
    assert train & train_again
    assert not (train | train_again) & test


# -- marks


@pytest.mark.parametrize("placement", ["hint", "every"])
@pytest.mark.parametrize("name", NAMES)
def test_segments_get_the_marks_that_the_placement_says(name: str, placement: str, make: Make) -> None:
    for options in ({}, facts(name).many):
        task = make(name, placement=placement, **options)
        examples = task.examples(200, 0)
        for i in range(200):
            expected = facts(name).n_marks(placement, examples[i].slices, task.text(examples[i]))
            assert n_marks(examples[i]) == expected


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("name", NAMES)
def test_random_marks_are_a_share_of_the_body_and_stay_in_it(name: str, rendering: str, make: Make) -> None:
    fraction = 0.25
    task = make(name, rendering, placement="random", mark_fraction=fraction)
    examples = task.examples(100, 0)
    for i in range(100):
        flags = examples[i].flags
        is_body, is_mark = (flags & BODY) > 0, (flags & META) > 0
        n_body = int(is_body.sum())
        assert n_marks(examples[i]) == int(n_body * fraction / (1 - fraction) + 1e-9)
        # The body is the first part of the prompt; no mark stands behind it.
        np.testing.assert_array_equal(np.flatnonzero(is_body[~is_mark]), np.arange(n_body))
        assert is_mark[np.flatnonzero(is_body)[-1] :].sum() == 0


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("name", NAMES)
def test_placements_differ_in_marks_alone(name: str, rendering: str, make: Make) -> None:
    plain = make(name, rendering, placement="none").examples(100, 0)
    assert (plain.flags & META).sum() == 0
    for placement in PLACEMENTS:
        marked = make(name, rendering, placement=placement).examples(100, 0)
        bare = remove_marks(marked)
        np.testing.assert_array_equal(bare.tokens, plain.tokens)
        np.testing.assert_array_equal(bare.offsets, plain.offsets)
        np.testing.assert_array_equal(bare.flags, plain.flags)
        for key, values in plain.slices.items():
            if key not in ("position", "distance"):  # where marks are is what they tell
                np.testing.assert_array_equal(bare.slices[key], values)


@pytest.mark.parametrize("placement", ["none", "hint", "every"])
@pytest.mark.parametrize("name", [name for name in NAMES if TASKS[name].reencodes])
def test_encoding_the_text_of_a_prompt_gives_its_tokens(
    name: str, placement: str, make: Make, tokenizer: MetaTokenizer
) -> None:
    task = make(name, "text", placement=placement, **facts(name).many)
    examples = task.examples(300, 0)
    for i in range(300):
        assert tokenizer.encode_prompt(task.text(examples[i])) == examples[i].tokens.tolist()


@pytest.mark.parametrize("name", TASKS)
def test_how_far_back_an_answer_stands_is_the_same_in_every_arm(name: str, make: Make) -> None:
    plain, marked = (make(name, placement=p).examples(50, 0) for p in ("none", "every"))
    np.testing.assert_array_equal(plain.slices["back"], marked.slices["back"])
    for i in range(50):
        flags = plain[i].flags
        (sources,), (answers,) = ((flags & flag).nonzero() for flag in (SOURCE, ANSWER))
        assert plain[i].slices["back"] == (answers[0] - sources[0] if len(sources) else -1)


# -- scores


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("name", NAMES)
def test_only_answers_are_scored(name: str, rendering: str, make: Make) -> None:
    examples = make(name, rendering).examples(50, 0)
    batch = examples.batch()
    for i in range(50):
        example = examples[i]
        targets_T = batch.targets_BT[i].numpy()
        scored = np.flatnonzero(targets_T >= 0)
        np.testing.assert_array_equal(scored + 1, np.flatnonzero(example.flags & ANSWER))
        np.testing.assert_array_equal(targets_T[scored], example.answer)
        assert len(example.answer) > 0


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("name", NAMES)
def test_the_answer_is_right_and_a_part_of_it_partly_right(name: str, rendering: str, make: Make) -> None:
    task = make(name, rendering)
    examples = task.examples(20, 0)
    for i in range(20):
        example = examples[i]
        answer = example.answer
        m = len(answer)
        assert task.score(answer, example) == (m, m, True)
        other = answer.copy()
        other[-1] = task.lexicon.tokenizer.eos_id
        assert task.score(other, example) == (m - 1, m, False)
        assert task.score(answer[:-1], example) == (m - 1, m, False)
        assert task.score(np.append(answer, answer[-1:]), example) == (m, m, False)
        assert task.score([], example) == (0, m, False)


# -- sizes and options


@pytest.mark.parametrize("name", NAMES)
def test_twice_the_length_is_twice_the_size(name: str, make: Make) -> None:
    task = make(name)
    largest = task.total_size[1]
    twice = task.longer(2).examples(20, 0)
    assert set(twice.slices[task.size_field]) == {2 * largest}
    level = make(name, level="medium").longer(2).examples(20, 0)
    assert level.lengths.min() > 0.85 * 256 - 1
    assert level.lengths.max() <= 256
    with pytest.raises(UserError, match=r"^lengths=-1: expected a positive multiple"):
        task.longer(-1)


@pytest.mark.parametrize("name", [name for name in NAMES if "n_names" in TASKS[name].__dataclass_fields__])
@pytest.mark.parametrize("rendering", RENDERINGS)
def test_lists_have_at_most_so_many_names(name: str, rendering: str, make: Make) -> None:
    task = make(name, rendering, placement="none", n_lists=(2, 7), n_names=7)
    names: set[str] = set()
    for prompt, _ in questions(task, task.examples(500, 0)):
        body = prompt.partition("\n" if rendering == "text" else "?")[0].partition("#")[0]
        of_lists = re.findall(rf" ({NAME}):" if rendering == "text" else r"L\d+", body)
        assert len(set(of_lists)) == len(of_lists) >= 2
        names.update(of_lists)
    assert len(names) == 7
    with pytest.raises(UserError, match=r"^data\.task_options\.n_lists=\[2, 8\]: .* between 1 and 7$"):
        make(name, rendering, n_lists=(2, 8), n_names=7)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_option_is_one_line_that_names_its_key(name: str) -> None:
    size = TASKS[name].size_field
    wrong = {
        rf"data\.task_options\.{size}=\[-2, 5\]: expected two integers": {size: (-2, 5)},
        rf"data\.task_options\.{size}=\[5, 2\]: expected two integers": {size: (5, 2)},
        rf"data\.task_options\.{size}=7: expected two integers": {size: 7},
        r"data\.meta_placement=evry: expected one of hint, every, after, random, none; did you mean 'every'\?": {
            "placement": "evry"
        },
        r"data\.meta_fraction=0\.9: expected a number above 0": {"mark_fraction": 0.9},
        r"data\.task_options\.level=hrad: expected one of medium, hard.*; did you mean 'hard'\?": {"level": "hrad"},
        r"data\.task_options\.bin=\[9, 3\]: expected two integers": {"bin": (9, 3)},
        rf"data\.task_options\.{size}s: {name} has no such option; did you mean '{size}'\?": {f"{size}s": (1, 2)},
        r"data\.task_options\.rendering=texts: expected one of symbols, text; did you mean 'text'\?": {
            "rendering": "texts"
        },
    }
    for message, options in wrong.items():
        with pytest.raises(UserError, match=f"^{message}") as caught:
            build(name, **options)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_that_never_fit_a_level_are_refused(name: str, make: Make) -> None:
    size = make(name).smallest_size
    task = make(name, level="long", **{TASKS[name].size_field: (size, size)})
    expected = rf"^data\.task_options\.{task.size_field}=\[{size}, {size}\]: prompts of {name} do not fit level long"
    with pytest.raises(UserError, match=expected):
        task.examples(2, 0)


def test_an_unknown_task_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"^data\.task='list_recal': expected one of .*; did you mean 'list_recall'\?"):
        build("list_recal")
