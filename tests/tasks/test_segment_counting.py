"""Segment counting: counts are spread, 0 among them, and counting in the whole prompt does not help."""

import re

import numpy as np
import pytest
from scipy.stats import chisquare

from lightning_metatok.data.examples import SOURCE
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.tasks import build
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.segment_counting import urn
from tests.tasks.facts.lists import named_lists
from tests.tasks.reading import questions


def test_a_prompt_reads_as_the_module_says(tokenizer: MetaTokenizer) -> None:
    task = build("segment_counting", rendering="text", tokenizer=tokenizer, n_lists=(1, 1), list_length=(3, 3))
    item, name = "[a-z]+", r"[A-Z][a-z]+(?: \d)?"
    body = rf" {name}:<\|meta\|> {item}, {item}, {item}<\|meta\|>\."
    text = task.text(task.examples(1, 0)[0])
    assert re.fullmatch(rf"{body}\nQ: how many {item} in {name}\?\nA: \d", text), text


@pytest.mark.parametrize("distinct", [2, 3])
def test_every_set_of_counts_is_equally_likely(distinct: int) -> None:
    L, n = 6, 4000
    which_nL = urn(Draws(0, "train", np.arange(n)), 1, L, distinct)[:, 0]
    # By stars and bars: so many ways to give the rest to the other items.
    others = np.array([1.0 if distinct == 2 else L - c + 1 for c in range(L + 1)])
    for item in range(distinct):
        counts = np.bincount((which_nL == item).sum(axis=1), minlength=L + 1)
        assert chisquare(counts, n * others / others.sum()).pvalue > 1e-3
    # And the places of an item are all alike.
    assert chisquare((which_nL == 0).sum(axis=0)).pvalue > 1e-3


def test_answers_are_spread_as_the_counts_are() -> None:
    task = build("segment_counting", list_length=(8, 8), n_lists=(3, 3))
    n = 4000
    counts = np.bincount(task.examples(n, 0, "test").slices["count"], minlength=9)
    expected = np.array([9.0 - c for c in range(9)])
    assert chisquare(counts, n * expected / expected.sum()).pvalue > 1e-3


def test_the_item_asked_about_stands_in_another_list_too() -> None:
    task = build("segment_counting", placement="none", n_lists=(2, 3), n_queries=3)
    examples = task.examples(500, 0)
    whole = 0
    for prompt, answer in questions(task, examples):
        body, *_, question = prompt.split(" # ")
        name, item = question.split()
        lists = named_lists(body, "symbols")
        elsewhere = sum(items.count(item) for other, items in lists.items() if other != name)
        assert elsewhere > 0
        whole += answer == str(elsewhere + lists[name].count(item))
        assert len({item for items in lists.values() for item in items}) <= 3
    assert whole == 0


def test_a_single_list_can_be_asked_about() -> None:
    task = build("segment_counting", placement="none", n_lists=(1, 1))
    counts = task.examples(300, 0).slices["count"]
    assert counts.min() == 0
    assert counts.max() > 8


def test_the_source_is_the_first_item_that_counts() -> None:
    task = build("segment_counting", placement="hint")
    examples = task.examples(300, 0)
    counts = examples.slices["count"]
    assert 0 in counts
    for i in range(300):
        example = examples[i]
        at = np.flatnonzero(example.flags & SOURCE)
        assert len(at) == (counts[i] > 0)
        if counts[i] == 0:
            assert (example.slices["position"], example.slices["distance"]) == (-1, -1)
            continue
        words = task.text(example).split()
        item = words[words.index("#") + 2]
        inside = words.index("<|meta|>")
        assert at[0] == words.index(item, inside) == example.slices["position"]
        assert example.slices["distance"] == at[0] - inside


def test_hint_wraps_the_list_that_is_asked_about() -> None:
    task = build("segment_counting", placement="hint")
    examples = task.examples(200, 0)
    for i in range(200):
        body, question = task.text(examples[i]).split(" # ")
        before, inside, _ = body.split(" <|meta|>")
        name, item, _ = question.split()
        assert before.split()[-1] == name
        assert len(inside.split()) == examples.slices["list_length"][i]
        assert inside.split().count(item) == examples.slices["count"][i]


def test_wrong_options_name_their_key() -> None:
    for options, message in (
        ({"distinct": 1}, r"distinct=1: expected an integer from 2 to 256, the items of the pool"),
        ({"distinct": 5, "pool": 4}, r"distinct=5: expected an integer from 2 to 4, the items of the pool"),
        ({"pool": 1}, r"pool=1: expected an integer from 2 to 256, the items there are"),
        ({"list_length": (1, 128)}, r"list_length=\[1, 128\]: expected two integers .* between 1 and 127"),
        ({"n_queries": 1.5}, r"n_queries=1\.5: expected an integer from 1"),
        ({"n_names": 0}, r"n_names=0: expected an integer from 1 to 256, the names there are"),
        ({"pool": "all"}, r"pool=all: expected an integer from 2 to 256, the items there are"),
    ):
        with pytest.raises(UserError, match=rf"^data\.task_options\.{message}$"):
            build("segment_counting", **options)
