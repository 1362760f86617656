"""Parity: balanced answers, a mark that has read all that counts, one label a hint."""

import re

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from lightning_metatok.data.examples import META, OPENS, SOURCE
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.tasks import Task, build
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


def ids_by_word(task: Task) -> list[list[tuple[str, int]]]:
    """The words of prompts with their position ids."""
    examples, found = task.examples(50, 0), []
    assert examples.position_ids is not None
    for i in range(50):
        part = slice(*examples.offsets[i : i + 2])
        found.append(list(zip(task.text(examples[i]).split(), examples.position_ids[part].tolist(), strict=True)))
    return found


def test_a_scratchpad_writes_the_parity_after_each_bit() -> None:
    task = build("parity", placement="none", scratchpad=True, n_bits=(3, 9), n_labels=(1, 2))
    for i, (prompt, answer) in enumerate(questions(task, examples := task.examples(200, 0))):
        body, _, asked = prompt.partition(" ? ")
        read = body.split()[: body.split().index(asked)]
        bits = [word == "one" for word in read if not word.startswith("L")]
        assert answer.split() == [("zero", "one")[sum(bits[: n + 1]) % 2] for n in range(len(bits))]
        assert examples.slices["place"][i] == len(bits)


def test_bits_between_labels_share_an_id_with_the_answer_and_questions_have_that_of_their_label() -> None:
    for words in ids_by_word(build("parity", coupled=True, placement="every", n_bits=(6, 9), n_labels=(2, 3))):
        expected, n_labels, of_label = [], 0, {}
        for word, _ in words[: (asked := [word for word, _ in words].index("?"))]:
            if word in ("zero", "one"):
                expected.append(2 * n_labels)
            else:
                if word != "<|meta|>":
                    of_label[word] = 2 * n_labels + 1
                    n_labels += 1
                expected.append(2 * n_labels - 1)
        question = of_label[words[asked + 1][0]]
        assert [id for _, id in words] == [*expected, question, question, question - 1]


def test_a_parity_of_the_scratchpad_has_the_id_of_its_bit() -> None:
    task = build("parity", coupled=True, placement="none", scratchpad=True, n_bits=(5, 5))
    for words in ids_by_word(task):
        asked = [word for word, _ in words].index("?")
        label = words[asked + 1][0]
        place = [word for word, _ in words].index(label)
        expected = [*range(1, place + 1), place, *range(place + 1, 6), 0, 0, *range(1, place + 1)]
        assert [id for _, id in words] == expected


@pytest.mark.parametrize("scratchpad", [False, True])
def test_with_one_label_the_ids_are_those_of_the_paper(scratchpad: bool) -> None:
    """Of bits, "=" and answer; the label stands in for the end of the bits, the question for "="."""
    task = build("parity", coupled=True, placement="none", scratchpad=scratchpad, n_bits=(4, 7))
    seen = 0
    for words in ids_by_word(task):
        asked = [word for word, _ in words].index("?")
        label = words[asked + 1][0]
        place = [word for word, _ in words].index(label)
        bits, answer = words[:place], words[asked + 2 :]
        # With s = 0: bits s, "=" s + 1, answer s; with scratchpad bits s + 1, s + 2, ..., "=" s, parities as the bits.
        counted = [*range(1, place + 1)]
        expected = [*counted, 0, *counted] if scratchpad else [*[0] * place, 1, 0]
        assert [id for _, id in (*bits, words[asked], *answer)] == expected
        seen += 1
    assert seen == 50
