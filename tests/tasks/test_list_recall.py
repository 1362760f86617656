"""List recall: different items in a list, every list and place asked alike, marks around the list asked about."""

import re

import numpy as np
import pytest
from scipy.stats import chisquare

from lightning_metatok.data.examples import ANSWER, SOURCE
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.tasks import build
from lightning_metatok.tasks.words import CATEGORIES
from tests.tasks.facts.lists import named_lists
from tests.tasks.reading import questions

FIXED = {"n_lists": (4, 4), "list_length": (6, 6)}


def test_a_prompt_reads_as_the_module_says(tokenizer: MetaTokenizer) -> None:
    task = build("list_recall", rendering="text", tokenizer=tokenizer, n_lists=(2, 2), list_length=(2, 2))
    text = task.text(task.examples(1, 0)[0])
    item, name = "[a-z]+", r"[A-Z][a-z]+(?: \d)?"
    plain, marked = rf" {name}: {item}, {item}\.", rf" {name}:<\|meta\|> {item}, {item}<\|meta\|>\."
    question = rf"\nQ: what is item [12] of {name}\?\nA: {item}"
    assert re.fullmatch(rf"({plain}{marked}|{marked}{plain}){question}", text), text


def test_items_of_a_list_are_different_and_of_the_pool() -> None:
    task = build("list_recall", placement="none", n_lists=(2, 6), list_length=(1, 8), pool=8)
    lengths, items = set(), set()
    for prompt, _ in questions(task, task.examples(500, 0)):
        lists = named_lists(prompt.partition(" ? ")[0], "symbols")
        assert 2 <= len(lists) <= 6
        for of_list in lists.values():
            assert len(set(of_list)) == len(of_list)
            lengths.add(len(of_list))
            items.update(of_list)
    assert lengths == set(range(1, 9))
    assert items == {f"a{i}" for i in range(8)}


def test_text_lists_have_items_of_their_category(tokenizer: MetaTokenizer) -> None:
    task = build("list_recall", rendering="text", tokenizer=tokenizer, placement="none")
    for prompt, _ in questions(task, task.examples(200, 0)):
        for name, items in named_lists(prompt.partition("\n")[0], "text").items():
            assert set(items) <= set(CATEGORIES[name.split()[0]])


def test_every_list_and_every_place_is_asked_alike() -> None:
    task = build("list_recall", placement="none", **FIXED)
    examples = task.examples(3000, 0)
    ks = np.bincount(examples.slices["k"], minlength=7)[1:]
    targets = np.zeros(4)
    for prompt, _ in questions(task, examples):
        body, question = prompt.split(" ? ")
        targets[list(named_lists(body, "symbols")).index(question.split()[0])] += 1
    assert chisquare(ks).pvalue > 1e-3
    assert chisquare(targets).pvalue > 1e-3


def test_hint_wraps_the_items_of_the_list_that_is_asked_about() -> None:
    task = build("list_recall", placement="hint")
    examples = task.examples(200, 0)
    for i in range(200):
        body, question = task.text(examples[i]).split(" ? ")
        before, inside, after = body.split(" <|meta|>")
        assert before.split()[-1] == question.split()[0]
        assert len(inside.split()) == examples.slices["list_length"][i]
        assert after == "" or after.startswith(" L")


def test_the_source_is_the_item_that_is_asked_for(tokenizer: MetaTokenizer) -> None:
    for rendering in ("symbols", "text"):
        task = build("list_recall", rendering=rendering, tokenizer=tokenizer)
        examples = task.examples(200, 0)
        for i in range(200):
            example = examples[i]
            np.testing.assert_array_equal(example.tokens[(example.flags & SOURCE) > 0], example.answer)
            position = example.slices["position"]
            assert position == np.flatnonzero(example.flags & SOURCE)[0]
            if rendering == "symbols":  # the mark stands before the first item
                assert example.slices["distance"] == example.slices["k"]


def test_questions_of_a_prompt_are_about_different_items_of_one_list() -> None:
    task = build("list_recall", placement="none", n_queries=3, list_length=(1, 5))
    examples = task.examples(300, 0)
    for i in range(300):
        asked = task.text(examples[i]).split(" ? ")[1:]
        assert len(asked) == min(3, examples.slices["list_length"][i])
        names, ks, _ = zip(*(question.split() for question in asked), strict=True)
        assert len(set(ks)) == len(ks)
        assert len(set(names)) == 1
        assert int((examples[i].flags & ANSWER > 0).sum()) == len(asked)
        assert int(ks[0]) == examples.slices["k"][i]


def test_no_list_that_is_asked_about_in_training_is_asked_about_in_the_test() -> None:
    options = {"n_lists": (2, 3), "list_length": (2, 2), "pool": 4, "n_names": 20, "n_queries": 2}
    task = build("list_recall", placement="none", **options)

    def asked(split: str) -> set[tuple[str, ...]]:
        found = set()
        for prompt, _ in questions(task, task.examples(1000, 0, split)):
            body, *_, question = prompt.split(" ? ")
            name = question.split()[0]
            found.add((name, *named_lists(body, "symbols")[name]))
        return found

    train, test = asked("train"), asked("test")
    assert not train & test
    # Of 20 names with 4 * 3 lists each, nearly all are asked about.
    assert 230 < len(train) + len(test) <= 240
    assert len(test) > 40


def test_wrong_options_name_their_key() -> None:
    for options, message in (
        ({"list_length": (3, 9), "pool": 8}, r"list_length=\[3, 9\]: expected two integers .* between 1 and 8"),
        ({"list_length": (3, 300)}, r"list_length=\[3, 300\]: expected two integers .* between 1 and 127"),
        ({"pool": 300}, r"pool=300: expected an integer from 1 to 256, the items there are"),
        ({"n_queries": 0}, r"n_queries=0: expected an integer from 1"),
        ({"n_names": 257}, r"n_names=257: expected an integer from 1 to 256, the names there are"),
        ({"n_lists": (2, 300)}, r"n_lists=\[2, 300\]: expected two integers .* between 1 and 256"),
    ):
        with pytest.raises(UserError, match=rf"^data\.task_options\.{message}$"):
            build("list_recall", **options)
