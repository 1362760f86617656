"""The statement stands anywhere in a haystack of the right split, and marks do not give it away."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from lightning_metatok.data.blocks import TokenStore
from lightning_metatok.data.examples import BODY, CLOSES, META, OPENS, OPENS_TARGET, SOURCE
from lightning_metatok.data.preparation import DataConfig, prepare
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.tasks import build
from lightning_metatok.tasks.needle import Needle
from tests.tasks.reading import count_disagreements, every, n_marks, questions

Make = Callable[..., Needle]


@pytest.fixture
def make(tokenizer: MetaTokenizer, haystack: TokenStore) -> Make:
    """`build`, with what text needs."""

    def made(**options: Any) -> Needle:
        task = build("needle", tokenizer=tokenizer, haystack=haystack, **options)
        assert isinstance(task, Needle)
        return task

    return made


@pytest.mark.parametrize("rendering", ["symbols", "text"])
@pytest.mark.parametrize("n_keys", [1, 4])
@pytest.mark.parametrize("n_values", [1, 3])
def test_several_keys_and_several_values(rendering: str, n_keys: int, n_values: int, make: Make) -> None:
    options = {"rendering": rendering, "n_keys": n_keys, "n_values": n_values, "n_hay": (60, 90)}
    task = make(placement="none", **options)
    examples = task.examples(200, seed=3)
    assert count_disagreements(task, examples)[0] == 0
    statement = r"number of (\w+) is \d \d \d \d\." if rendering == "text" else r"(L\d+) = \d \d \d \d ;"
    for prompt, answer in questions(task, examples):
        assert len(re.findall(r"\d", answer)) == 4 * n_values
        keys = re.findall(statement, prompt)
        assert len(keys) == task.n_needles == n_keys + n_values - 1
        assert len(set(keys)) == n_keys
    units = task.n_needles + max(task.n_needles, 3)
    for placement, count in (("every", units), ("hint", n_values)):
        marked = make(placement=placement, **options).examples(50, seed=3)
        assert {n_marks(example) for example in every(marked)} == {2 * count}


def test_a_hint_wraps_the_needles_that_are_asked_about(make: Make) -> None:
    task = make(n_keys=4, n_values=2)
    for example in every(task.examples(100, seed=3)):
        body, asked = task.text(example).split(" ? ")
        key, *digits = asked.split()
        wrapped = [part.split() for part in body.split("<|meta|>")[1::2]]
        assert wrapped == [[key, "=", *digits[:4], ";"], [key, "=", *digits[4:], ";"]]
        sources = task.lexicon.tokenizer.decode(example.tokens[(example.flags & SOURCE) > 0].tolist())
        assert sources.split() == digits


def hay(task: Needle, tokens: np.ndarray) -> np.ndarray:
    """Return the body's tokens without the only needle, which is found by its words."""
    encode = task.lexicon.tokenizer.encode
    start, end = encode(" The special number of"), encode(".")[0]
    at = next(i for i in range(len(tokens)) if tokens[i : i + len(start)].tolist() == start)
    stop = at + tokens[at:].tolist().index(end)
    return np.concatenate([tokens[:at], tokens[stop + 1 :]])


def test_few_symbols_give_few_keys_and_digits(make: Make) -> None:
    task = make(symbols=[6, 8, 20], n_keys=8, placement="none")
    examples = task.examples(100, seed=3)
    assert count_disagreements(task, examples) == (0, 100)
    assert {digit for _, answer in questions(task, examples) for digit in answer.split()} == set("012345")
    with pytest.raises(UserError, match=r"n_keys=9: expected an integer from 1 to 8$"):
        make(symbols=[6, 8, 20], n_keys=9)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_haystack_is_a_stretch_of_text_of_its_split(split: Any, make: Make, haystack: TokenStore) -> None:
    task = make(rendering="text", placement="every")
    store, encode = haystack, task.lexicon.tokenizer.encode
    stream = store.stream("train" if split == "train" else "validation").astype(np.int32)
    stream[stream == store.eos_id] = encode("\n")[0]
    other = store.stream("validation" if split == "train" else "train").astype(np.int32).tobytes()
    for example in every(task.examples(50, 4, split)):
        found = hay(task, example.tokens[(example.flags & (BODY | META)) == BODY])
        assert len(found) == example.slices["n_hay"]
        assert found.tobytes() in stream.tobytes()
        assert found.tobytes() not in other


def test_the_haystack_of_symbols_holds_items_alone(make: Make) -> None:
    task = make(n_keys=3)
    for example in every(task.examples(50, seed=5)):
        words = task.text(example).replace("<|meta|>", "").split()
        items = [word for word in words if word.startswith("a")]
        assert len(items) == example.slices["n_hay"]
        assert len(words) - len(items) == 3 * 7 + 2 + 4, "needles of seven words, the question, the answer"


@pytest.mark.parametrize("rendering", ["symbols", "text"])
def test_depth_is_uniform_and_says_where_the_needle_stands(rendering: str, make: Make) -> None:
    task = make(rendering=rendering, n_hay=(200, 300), placement="none")
    examples = task.examples(1000, seed=6)
    depth, n_hay = examples.slices["depth"], examples.slices["n_hay"]
    # Between a needle's start and its first digit are at most 20 tokens.
    away = examples.slices["position"] - depth * n_hay / 100
    assert away.min() > 0
    assert away.max() < 25
    assert scipy.stats.kstest(depth, scipy.stats.randint(0, 101).cdf).pvalue > 0.01


def test_decoys_are_as_long_as_needles_and_in_no_place_of_their_own(make: Make) -> None:
    task = make(rendering="text", placement="every", n_hay=(300, 300))
    numbers, lengths = [], []
    for example in every(task.examples(600, seed=7)):
        is_meta = (example.flags & META) > 0
        at = np.flatnonzero(is_meta).reshape(-1, 2)
        lengths.append(at[:, 1] - at[:, 0] - 1)
        source = np.flatnonzero(example.flags & SOURCE)[0]
        (number,) = np.flatnonzero((at[:, 0] < source) & (source < at[:, 1]))
        numbers.append(number)
    n_needle = np.array([row[number] for row, number in zip(lengths, numbers, strict=True)])
    n_decoy = np.array([np.delete(row, number) for row, number in zip(lengths, numbers, strict=True)])
    assert len(set(n_decoy.reshape(-1).tolist())) == 1
    assert n_needle.min() <= n_decoy[0, 0] <= n_needle.max()
    assert scipy.stats.chisquare(np.bincount(numbers, minlength=4)).pvalue > 0.01


def test_slots_are_where_marks_may_stand_in_every_placement(make: Make) -> None:
    examples = make(placement="none", n_values=2).examples(50, seed=8)
    for flag, count in ((OPENS, 5), (CLOSES, 5), (OPENS_TARGET, 2)):
        assert (np.add.reduceat((examples.flags & flag) > 0, examples.offsets[:-1], dtype=int) == count).all()


def test_text_is_cut_between_tokens_so_that_it_may_encode_otherwise(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"{i}: " + "déjà vu à l'été " * 20}) for i in range(40)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    config = DataConfig(
        corpus=str(tmp_path / "corpus.jsonl"), validation_fraction=0.25, vocab_size=258, cache_dir=str(tmp_path)
    )
    tokenizer, store = prepare(config)
    task = build("needle", rendering="text", tokenizer=tokenizer, haystack=store)
    assert not task.reencodes
    # A needle may stand between the two bytes of a letter.
    again = [tokenizer.encode_prompt(task.text(example)) for example in every(task.examples(50, seed=9))]
    same = [ids == example.tokens.tolist() for ids, example in zip(again, every(task.examples(50, 9)), strict=True)]
    assert True in same
    assert False in same


def test_the_text_is_part_of_what_examples_depend_on(make: Make, haystack: TokenStore) -> None:
    assert make(rendering="text").describe()["haystack"] == haystack.folder.name
    assert "haystack" not in make().describe()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_keys": 0}, r"data\.task_options\.n_keys=0: expected an integer from 1 to 64"),
        ({"n_keys": "two"}, r"data\.task_options\.n_keys=two: expected an integer from 1 to 64"),
        ({"n_values": 65}, r"data\.task_options\.n_values=65: expected an integer from 1 to 64"),
        ({"n_hay": (2, 4)}, r"data\.task_options\.n_hay=\[2, 4\]: expected two integers .* between 16 and"),
        ({"n_hay": (20, 40), "n_keys": 30}, r"n_hay=\[20, 40\]: expected two integers .* between 30 and"),
    ],
)
def test_options_that_cannot_work_name_their_key(options: dict[str, object], message: str, make: Make) -> None:
    with pytest.raises(UserError, match=message):
        make(**options)


def test_text_needs_a_corpus_that_is_long_enough(make: Make, tokenizer: MetaTokenizer, haystack: TokenStore) -> None:
    with pytest.raises(UserError, match=r"data\.corpus=None: needle hides .* expected a corpus"):
        build("needle", rendering="text", tokenizer=tokenizer)
    n_tokens = haystack.n_tokens("validation")
    task = make(rendering="text", n_hay=(n_tokens + 1, n_tokens + 1))
    with pytest.raises(UserError, match=rf"data\.corpus: its validation split has {n_tokens} tokens"):
        task.examples(1, 0, "test")
    assert len(task.examples(1, 0, "train")) == 1
