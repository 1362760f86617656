"""A value is copied along a chain whose assignments stand in a consistent order among those of other chains."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import scipy.stats

from lightning_metatok.data.blocks import TokenStore
from lightning_metatok.data.examples import SOURCE
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.tasks import build
from lightning_metatok.tasks.variable_tracking import VariableTracking
from tests.tasks.reading import count_disagreements, every, questions

Make = Callable[..., VariableTracking]


@pytest.fixture
def make(tokenizer: MetaTokenizer, haystack: TokenStore) -> Make:
    """`build`, with what text needs."""

    def made(**options: Any) -> VariableTracking:
        task = build("variable_tracking", tokenizer=tokenizer, haystack=haystack, **options)
        assert isinstance(task, VariableTracking)
        return task

    return made


@pytest.mark.parametrize("rendering", ["symbols", "text"])
def test_chains_are_as_many_and_as_long_as_the_slices_say(rendering: str, make: Make) -> None:
    task = make(rendering=rendering, hops=(0, 5), n_chains=(1, 6), placement="none")
    seen = set()
    examples = task.examples(300, seed=3)
    for (prompt, answer), example in zip(questions(task, examples), every(examples), strict=True):
        program, question = prompt.split("\nQ: what is " if rendering == "text" else " ? ")
        copied = dict(assignment.split(" = ") for assignment in re.split(r" ?; ?", program.strip(" ;")))
        assert sum(value.isdigit() for value in copied.values()) == example.slices["n_chains"]
        variable, hops = question.removesuffix("?\nA:").strip(), 0
        assert variable not in copied.values(), "the last variable of its chain"
        while not copied[variable].isdigit():
            variable, hops = copied[variable], hops + 1
        assert hops == example.slices["hops"]
        assert copied[variable] == answer
        seen.add((example.slices["n_chains"], hops))
    assert len(seen) == 6 * 6


def test_every_consistent_order_is_equally_likely(make: Make) -> None:
    task = make(hops=(1, 1), n_chains=(2, 2), placement="none")
    orders: Counter[str] = Counter()
    for example in every(task.examples(1200, seed=4)):
        chain: dict[str, str] = {}
        order = ""
        for variable, value in re.findall(r"(\S+) = (\S+) ;", task.text(example)):
            chain[variable] = chain.get(value, "A" if not chain else "B")
            order += chain[variable]
        orders[order] += 1
    assert sorted(orders) == ["AABB", "ABAB", "ABBA"]
    assert scipy.stats.chisquare(list(orders.values())).pvalue > 0.01


def test_a_hint_wraps_the_chain_that_is_asked(make: Make) -> None:
    task = make()
    for example in every(task.examples(100, seed=6)):
        body, asked = task.text(example).split(" ? ")
        wrapped = [part.split() for part in body.split("<|meta|>")[1::2]]
        variable, answer = asked.split()
        assert wrapped[0][2] == answer, "starts with the value"
        assert [first for first, _, _ in wrapped[:-1]] == [copied for _, _, copied in wrapped[1:]]
        assert wrapped[-1][0] == variable
        (source,) = example.tokens[(example.flags & SOURCE) > 0]
        assert task.lexicon.tokenizer.decode([source]) == answer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hops": (3, 2)}, r"data\.task_options\.hops=\[3, 2\]: expected two integers"),
        ({"hops": (2, 33)}, r"data\.task_options\.hops=\[2, 33\]: expected two integers .* between 0 and 32"),
        ({"variable_words": 0}, r"data\.task_options\.variable_words=0: expected an integer from 1 to 2"),
        (
            {"n_chains": (2, 103)},
            r"data\.task_options\.n_chains=\[2, 103\]: expected two integers .* between 1 and 102$",
        ),
        ({"n_chains": (2, 16), "hops": (0, 32)}, r"n_chains=\[2, 16\]: expected two integers .* between 1 and 15$"),
        (
            {"bin": (1740, 2048)},
            r"data\.task_options\.variable_words=1: expected 2 to fill prompts of 1741 to 2048 tokens",
        ),
    ],
)
def test_options_that_cannot_work_name_their_key(options: dict[str, object], message: str, make: Make) -> None:
    with pytest.raises(UserError, match=message):
        make(**options)


def test_few_symbols_give_few_variables(make: Make) -> None:
    few = {"symbols": [4, 3, 5], "n_chains": (1, 2)}
    task = make(hops=(0, 3), **few)
    assert count_disagreements(task, task.examples(100, seed=8)) == (0, 100)
    with pytest.raises(UserError, match=r"n_chains=\[1, 2\]: expected two integers .* between 1 and 1$"):
        make(hops=(0, 4), **few)
    with pytest.raises(UserError, match=r"hops=\[0, 8\]: expected two integers .* between 0 and 7$"):
        make(hops=(0, 8), **few)


def test_variables_of_two_words_allow_longer_prompts(make: Make) -> None:
    task = make(level="hard", variable_words=2).longer(8)
    examples = task.examples(20, seed=7)
    assert (examples.lengths > 1740).all()
    assert count_disagreements(task, examples)[0] == 0
