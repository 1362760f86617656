"""Parity: balanced answers, a mark that has read all that counts, one label a hint."""

import re

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from lightning_metatok.data.examples import META, OPENS, SOURCE
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.tasks import build
from tests.tasks.reading import count_disagreements, every, n_marks, questions


def test_a_prompt_reads_as_the_module_says(tokenizer: MetaTokenizer) -> None:
    task = build("parity", rendering="text", tokenizer=tokenizer, n_bits=(4, 4))
    text = task.text(task.examples(1, 0)[0])
    assert re.fullmatch(r" Bits:( [01])+ ([A-Z])<\|meta\|>( [01])*\.\nQ: parity before \2\?\nA: [01]", text), text


def test_answers_are_balanced_and_every_place_is_asked_alike() -> None:
    task = build("parity", n_bits=(6, 6), placement="none")
    for split in ("train", "test"):
        examples = task.examples(2000, 0, split)
        assert chisquare(np.bincount(examples.slices["place"], minlength=7)[1:]).pvalue > 1e-3
    # Few bits would not do: their 64 contents are dealt to the splits, neither of which need be balanced.
    long = build("parity", n_bits=(30, 30), placement="none")
    ones = sum(answer == "one" for _, answer in questions(long, long.examples(2000, 0)))
    assert binomtest(ones, 2000).pvalue > 1e-3


def test_the_mark_stands_behind_the_label_that_is_asked_about() -> None:
    task = build("parity", placement="hint", n_labels=(3, 3))
    examples = task.examples(200, 0)
    for i in range(200):
        example = examples[i]
        words = task.text(example).split()
        asked = words[words.index("?") + 1]
        (mark,) = np.flatnonzero(example.flags & META)
        (label,) = np.flatnonzero(example.flags & SOURCE)
        assert mark == label + 1
        assert words[label] == asked
        bits = [word for word in words[:label] if word in ("zero", "one")]
        assert len(bits) == example.slices["place"]
        assert example.slices["position"] == label
        assert words.count("?") == 1
        assert not (example.flags & OPENS).any()


def test_every_marks_all_labels_which_stand_at_different_places() -> None:
    task = build("parity", placement="every", n_labels=(2, 5), n_bits=(5, 9))
    examples = task.examples(300, 0)
    seen = set()
    for i in range(300):
        body = task.text(examples[i]).partition(" ?")[0]
        labels = re.findall(r"(?:zero|one) (L\d+) <\|meta\|>", body)
        assert len(labels) == n_marks(examples[i]) == body.count("L") == len(set(labels))
        assert len(re.findall(r"zero|one", body)) == examples.slices["n_bits"][i]
        seen.add(len(labels))
    assert seen == {2, 3, 4, 5}


def test_labels_are_the_names_there_are() -> None:
    task = build("parity", n_labels=(1, 5), symbols=[2, 5, 2])
    examples = task.examples(200, 0)
    assert count_disagreements(task, examples) == (0, 200)
    labels = {label for example in every(examples) for label in re.findall(r"L\d+", task.text(example))}
    assert labels == {f"L{i}" for i in range(5)}


def test_several_labels_are_asked_unless_a_hint_marks_one() -> None:
    for placement, expected in (("hint", 1), ("every", 3), ("random", 3), ("none", 3)):
        task = build("parity", placement=placement, n_labels=(4, 4), n_queries=3)
        examples = task.examples(50, 0)
        for i in range(50):
            asked = [question.split()[0] for question in task.text(examples[i]).split(" ? ")[1:]]
            assert len(asked) == len(set(asked)) == expected


def test_a_default_size_grows_with_the_labels() -> None:
    task = build("parity", n_labels=(20, 20))
    assert task.total_size == (20, 20)
    assert (task.examples(5, 0).slices["n_bits"] == 20).all()
    few = build("parity", n_labels=(3, 3), level="medium").examples(50, 0)
    assert few.slices["n_bits"].min() >= 3


def test_wrong_options_name_their_key() -> None:
    for options, message in (
        ({"n_labels": (1, 27)}, r"n_labels=\[1, 27\]: expected two integers .* between 1 and 26"),
        ({"n_labels": (1, 6), "symbols": [2, 5, 2]}, r"n_labels=\[1, 6\]: expected two integers .* between 1 and 5"),
        ({"n_labels": 2}, r"n_labels=2: expected two integers .* between 1 and 26"),
        (
            {"n_labels": (1, 4), "n_bits": (3, 9)},
            r"n_bits=\[3, 9\]: expected at least 4 bits, one before each of the n_labels",
        ),
        ({"n_queries": 0}, r"n_queries=0: expected an integer from 1"),
    ):
        with pytest.raises(UserError, match=rf"^data\.task_options\.{message}$"):
            build("parity", **options)
