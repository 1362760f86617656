"""Copying: spans do not overlap, stand anywhere, and the closing bracket is part of the answer."""

import re
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chisquare

from lightning_metatok.data.examples import META, SOURCE
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.tasks import build
from tests.tasks.reading import questions


def test_a_prompt_reads_as_the_module_says(tokenizer: MetaTokenizer) -> None:
    task = build("copying", rendering="text", tokenizer=tokenizer, n_words=(5, 5), span_length=(2, 2))
    text = task.text(task.examples(1, 0)[0])
    span = r"( [A-Z][a-z]+(?: \d)?) \[<\|meta\|>( [a-z]+ [a-z]+) \]<\|meta\|>"
    assert re.fullmatch(rf"( [a-z]+)*{span}( [a-z]+)*\nQ: copy\2\nA: \[\3 \]", text), text


def test_spans_do_not_overlap_and_have_the_lengths_that_are_allowed() -> None:
    task = build("copying", placement="none", n_words=(12, 20), n_spans=(1, 3), span_length=(2, 4))
    examples = task.examples(500, 0)
    numbers, lengths = set(), set()
    for i, (prompt, answer) in enumerate(questions(task, examples)):
        body = prompt.partition(" ?")[0]
        brackets = re.findall(r"[\[\]]", body)
        assert brackets == ["[", "]"] * (len(brackets) // 2)
        assert len(re.findall(r"\ba\d+", body)) == examples.slices["n_words"][i]
        names = re.findall(r"L\d+(?= \[)", body)
        assert len(names) == len(set(names)) == len(brackets) // 2
        numbers.add(len(names))
        lengths.update(len(span.split()) for span in re.findall(r"\[([^\]]*)\]", body))
        assert len(answer.split()) == examples.slices["span_length"][i] + 1
        assert answer.endswith(" ]")
    assert numbers == {1, 2, 3}
    assert lengths == {2, 3, 4}


def test_a_text_may_be_all_spans() -> None:
    task = build("copying", placement="none", n_words=(6, 6), n_spans=(2, 2), span_length=(3, 3))
    for prompt, _ in questions(task, task.examples(100, 0)):
        assert re.fullmatch(r"(L\d+ \[( a\d+){3} \] ?){2}\? L\d+ \[", prompt), prompt


def test_a_span_stands_anywhere_and_every_span_is_asked_alike() -> None:
    task = build("copying", placement="none", n_words=(10, 10), span_length=(3, 3))
    starts = [prompt.split().index("[") - 1 for prompt, _ in questions(task, task.examples(2000, 0))]
    assert chisquare(np.bincount(starts, minlength=8)).pvalue > 1e-3
    three = build("copying", placement="none", n_words=(12, 12), n_spans=(3, 3), span_length=(2, 2))
    asked = np.zeros(3)
    for prompt, _ in questions(three, three.examples(1500, 0)):
        names = re.findall(r"L\d+", prompt)
        asked[names.index(names[-1])] += 1
    assert chisquare(asked).pvalue > 1e-3


def test_marks_stand_behind_both_brackets() -> None:
    task = build("copying", placement="every", n_words=(18, 30), n_spans=(1, 3))
    examples = task.examples(200, 0)
    for i in range(200):
        words = task.text(examples[i]).split()
        body = words[: words.index("?")]
        behind = {before for before, word in pairwise(body) if word == "<|meta|>"}
        assert behind == {"[", "]"}
        assert body.count("<|meta|>") == body.count("[") + body.count("]")


def test_the_source_is_the_span_that_is_asked_about(tokenizer: MetaTokenizer) -> None:
    for rendering in ("symbols", "text"):
        task = build("copying", rendering=rendering, tokenizer=tokenizer, n_spans=(2, 2), n_words=(16, 24))
        close = task.lexicon.tokenizer.encode(" ]")
        examples = task.examples(100, 0)
        for i in range(100):
            example = examples[i]
            source = example.tokens[(example.flags & SOURCE) > 0]
            np.testing.assert_array_equal([*source, *close], example.answer)
            assert example.slices["distance"] == 1
            assert example.flags[example.slices["position"] - 1] & META


def test_a_default_size_grows_with_the_spans() -> None:
    task = build("copying", n_spans=(2, 2), span_length=(20, 20))
    assert task.total_size == (40, 40)
    assert (task.examples(5, 0).slices["n_words"] == 40).all()
    assert (task.longer(2).examples(5, 0).slices["n_words"] == 80).all()
    filled = build("copying", n_spans=(2, 2), span_length=(20, 20), level="hard").examples(50, 0)
    assert np.ptp(filled.lengths) > 60


def test_wrong_options_name_their_key() -> None:
    for options, message in (
        ({"n_spans": (0, 1)}, r"n_spans=\[0, 1\]: expected two integers .* between 1 and 256"),
        ({"span_length": (0, 3)}, r"span_length=\[0, 3\]: expected two integers .* between 1 and 100000"),
        (
            {"n_spans": (2, 2), "n_words": (11, 30)},
            r"n_words=\[11, 30\]: expected at least 12 words, for up to 2 spans \(n_spans\) of up to 6 \(span_length\)",
        ),
        ({"pool": 0}, r"pool=0: expected an integer from 1 to 256, the words there are"),
    ):
        with pytest.raises(UserError, match=rf"^data\.task_options\.{message}$"):
            build("copying", **options)


def test_the_answer_has_the_ids_of_its_span() -> None:
    task = build("copying", coupled=True, placement="every", n_words=(18, 20), n_spans=(1, 3))
    examples = task.examples(100, 0)
    assert examples.position_ids is not None
    for i in range(100):
        ids = examples.position_ids[examples.offsets[i] : examples.offsets[i + 1]].tolist()
        words = task.text(examples[i]).split()
        asked = words.index("?")
        of_names, expected, count = {}, [], 0
        for place, word in enumerate(words[:asked]):
            if word.startswith("L"):
                of_names[word] = count + 1  # as the bracket behind it
            elif word != "<|meta|>":
                count += 1
            after_bracket = word == "<|meta|>" and words[place - 1] == "["
            expected.append(count + (word.startswith("L") or after_bracket))
        first = of_names[words[asked + 1]]
        answer = [0, first, *range(first, first + len(words) - asked - 2)]
        assert ids == [*expected, *answer]


def test_a_span_alone_has_the_ids_of_the_paper() -> None:
    task = build("copying", coupled=True, placement="none", n_words=(4, 4), span_length=(4, 4))
    examples = task.examples(5, 0)
    # L [ a b c d ] ? L [ a b c d ]: inputs s + 1 ... s + n, the sign before the answer s, the answer as the inputs.
    assert examples.position_ids is not None
    assert examples.position_ids[:15].tolist() == [1, 1, 2, 3, 4, 5, 6, 0, 1, 1, 2, 3, 4, 5, 6]
