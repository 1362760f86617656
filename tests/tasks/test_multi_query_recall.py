"""Every key asked has its value scored; keys are different; marks stand around the pairs asked."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats

from lightning_metatok.data.blocks import TokenStore
from lightning_metatok.data.examples import SOURCE
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.tasks import build
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.keys import Keys
from lightning_metatok.tasks.multi_query_recall import MultiQueryRecall
from tests.tasks.reading import count_disagreements, every

Make = Callable[..., MultiQueryRecall]


def sample(task: MultiQueryRecall) -> str:
    """A prompt."""
    return task.text(task.examples(1, seed=0)[0])


@pytest.fixture
def make(tokenizer: MetaTokenizer, haystack: TokenStore) -> Make:
    """`build`, with what text needs."""

    def made(**options: Any) -> MultiQueryRecall:
        task = build("multi_query_recall", tokenizer=tokenizer, haystack=haystack, **options)
        assert isinstance(task, MultiQueryRecall)
        return task

    return made


SIZES = {("symbols", 1): 512, ("symbols", 2): 65536, ("text", 1): 800, ("text", 2): 5120}


@pytest.mark.parametrize("rendering", ["symbols", "text"])
@pytest.mark.parametrize("options", [{"key_words": 1}, {"key_words": 2}, {"n_queries": 1}, {"n_queries": 20}])
def test_options_change_what_is_asked(rendering: str, options: dict[str, int], make: Make) -> None:
    task = make(rendering=rendering, n_pairs=(20, 30), **options)
    examples = task.examples(100, seed=3)
    assert count_disagreements(task, examples) == (0, 100 * task.n_queries)
    assert set(examples.slices["n_queries"]) == {task.n_queries}
    assert len(task.keys) == SIZES[rendering, options.get("key_words", 1)]


def test_a_key_has_as_many_words_as_the_option_says(make: Make) -> None:
    assert re.fullmatch(r"((L|a)\d+ \d+ )+\? .*", sample(make(placement="none", key_words=1)))
    assert re.fullmatch(r"(L\d+ a\d+ \d+ )+\? .*", sample(make(placement="none", key_words=2)))
    text = {"placement": "none", "rendering": "text", "n_pairs": (40, 40)}
    assert re.match(r"( [a-z]+: \d+,){39} [a-z]+: \d+\.\nQ: [a-z]+\nA: \d+\nQ:", sample(make(key_words=1, **text)))
    assert re.match(r"( [A-Z][a-z]+( \d)? [a-z]+: \d+,){39}", sample(make(key_words=2, **text)))


def test_keys_asked_come_in_random_order_and_are_different(make: Make) -> None:
    task = make(n_pairs=(6, 6), n_queries=6, key_words=1)
    orders = []
    for example in every(task.examples(500, seed=4)):
        body, asked = task.text(example).replace("<|meta|>", "").split("?")
        keys = body.split()[::2]
        orders.append([keys.index(key) for key in asked.split()[::2]])
    assert all(sorted(order) == list(range(6)) for order in orders)
    counts = np.bincount([order[0] for order in orders], minlength=6)
    assert scipy.stats.chisquare(counts).pvalue > 0.01


def test_a_hint_wraps_a_pair_that_is_asked(make: Make) -> None:
    task = make(n_pairs=(5, 9), n_queries=2, key_words=1)
    for example in every(task.examples(100, seed=6)):
        body, asked = task.text(example).split(" ? ")
        wrapped = {(words[0], words[1]) for words in map(str.split, body.split("<|meta|>")[1::2])}
        assert wrapped == set(zip(asked.split()[::2], asked.split()[1::2], strict=True))
        sources = task.lexicon.tokenizer.decode(example.tokens[(example.flags & SOURCE) > 0].tolist())
        assert sorted(sources.split()) == sorted(asked.split()[1::2])


def test_evaluation_keeps_all_questions_and_exact_means_all(make: Make) -> None:
    task = make()
    assert task.asking_once() is task
    example = task.examples(1, seed=7)[0]
    answer = example.answer.copy()
    assert task.score(answer, example) == (4, 4, True)
    answer[2] += 1
    assert task.score(answer, example) == (3, 4, False)


def test_all_keys_there_are_may_stand_in_one_prompt(make: Make) -> None:
    task = make(n_pairs=(512, 512))
    examples = task.examples(3, seed=8)
    assert count_disagreements(task, examples) == (0, 12)
    assert set(examples.slices["n_pairs"]) == {512}


@pytest.mark.parametrize("placement", ["every", "none"])
def test_keys_are_two_words_where_a_bin_has_room_for_more_pairs_than_single_ones(placement: str, make: Make) -> None:
    text = {"rendering": "text", "placement": placement}
    assert make(placement=placement, level="extra-hard").keys.n_words == 1
    assert make(placement=placement, level="long").keys.n_words == 2
    assert make(placement=placement, level="long", bin=(900, 1024)).keys.n_words == 1
    assert make(placement=placement, level="long", key_words=2).keys.n_words == 2
    assert make(level="long", **text).keys.n_words == 1
    assert make(bin=(3000, 3201), **text).keys.n_words == 2


@pytest.mark.parametrize(("rendering", "top"), [("symbols", 1024), ("text", 3200)])
def test_keys_of_one_word_fill_the_bin_that_they_are_used_for(rendering: str, top: int, make: Make) -> None:
    task = make(rendering=rendering, placement="none", bin=(top - 50, top))
    assert task.keys.n_words == 1
    examples = task.examples(60, seed=9)
    assert examples.lengths.max() > top - 5
    assert examples.slices["n_pairs"].max() < len(task.keys)


def test_longer_prompts_have_keys_of_as_many_words(make: Make) -> None:
    assert make(level="medium").longer(4).keys.n_words == 1
    assert make(level="long").longer(0.25).keys.n_words == 2
    assert make(level="long", n_pairs=(300, 600)).longer(1.5).keys.n_words == 2
    with pytest.raises(UserError, match=r"key_words=1: expected 2 to fill prompts of 1741 to 2048 tokens: 512 diff"):
        make(level="hard").longer(8)
    with pytest.raises(UserError, match=r"n_pairs=\[640, 640\]: expected two integers .* between 4 and 512$"):
        make(n_pairs=(4, 16)).longer(40)


@pytest.mark.parametrize("count", [7, 100, 512])
def test_key_numbers_are_different_and_equally_likely(count: int, make: Make) -> None:
    n = 5000 if count < 512 else 50
    keys = Keys(make().lexicon, 1)
    drawn_nN = keys.draw(Draws(0, "train", np.arange(n)), "keys", np.full(n, count))
    assert (np.diff(np.sort(drawn_nN, axis=1), axis=1) > 0).all()
    assert drawn_nN.min() >= 0
    assert drawn_nN.max() < len(keys) == 512
    # Fewer ups and downs than independent draws have, since each part of the keys gives one.
    assert scipy.stats.chisquare(np.bincount(drawn_nN.reshape(-1), minlength=512)).pvalue > 0.01
    # The smallest may stand anywhere.
    assert scipy.stats.chisquare(np.bincount(np.argmin(drawn_nN, axis=1), minlength=count)).pvalue > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_queries": 0}, r"data\.task_options\.n_queries=0: expected an integer from 1 to 512, the keys there are"),
        ({"key_words": 3}, r"data\.task_options\.key_words=3: expected an integer from 1 to 2"),
        ({"n_pairs": (1, 3)}, r"data\.task_options\.n_pairs=\[1, 3\]: expected two integers .* between 4 and"),
        ({"n_pairs": (4, 513)}, r"data\.task_options\.n_pairs=\[4, 513\]: expected two integers .* between 4 and 512$"),
        (
            {"level": "long", "key_words": 1},
            r"data\.task_options\.key_words=1: expected 2 to fill prompts of 1025 to 2048 tokens: 512 different ones",
        ),
    ],
)
def test_options_that_cannot_work_name_their_key(options: dict[str, object], message: str, make: Make) -> None:
    with pytest.raises(UserError, match=message):
        make(**options)
