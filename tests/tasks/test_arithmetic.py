"""Addition and multiplication: digits by place, and the ids that couple them."""

import numpy as np
import pytest

from lightning_metatok.data.examples import META, Examples
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.tasks import Task, build
from lightning_metatok.tasks.arithmetic import carried
from lightning_metatok.tasks.marks import remove_marks


def ids_of(task: Task, examples: Examples, i: int) -> str:
    """Words and their ids: `6:3 5:2 ...`."""
    assert examples.position_ids is not None
    part = slice(examples.offsets[i], examples.offsets[i + 1])
    words = [task.lexicon.tokenizer.decode([token], skip_meta=False).strip() for token in examples.tokens[part]]
    return " ".join(f"{word}:{id}" for word, id in zip(words, examples.position_ids[part].tolist(), strict=True))


def addition_ids(a: str, b: str, c: str) -> list[int]:
    """The rule of the paper's code for reversed answers, start 0."""
    places = list(range(len(a), 0, -1))
    return [*places, 0, *places, 0, *range(1, len(c) + 1)]


def multiplication_ids(a: str, b: str, c: str) -> list[int]:
    """Likewise: what ends a number ends at e, the answer counts down from e - 1."""
    e = len(a) + len(b)
    return [*range(e - len(a), e + 1), *range(e - len(b), e + 1), *range(e - 1, e - 1 - len(c), -1)]


@pytest.mark.parametrize(
    ("name", "sign", "rule"), [("addition", "|", addition_ids), ("multiplication", "#", multiplication_ids)]
)
def test_ids_are_those_of_the_paper_and_start_at_zero(name: str, sign: str, rule: object) -> None:
    task = build(name, coupled=True, placement="none", n_digits=(1, 7))
    examples = task.examples(100, 0)
    for i in range(100):
        text = task.text(examples[i]).split()
        first, second = text.index(sign), text.index("=")
        parts = text[:first], text[first + 1 : second], text[second + 1 :]
        start, stop = examples.offsets[i : i + 2]
        assert examples.position_ids is not None
        assert examples.position_ids[start:stop].tolist() == rule(*("".join(part) for part in parts))  # type: ignore[operator]
    # 653 + 049 = 0702, reversed, with start 6: 9 8 7, + 6, 9 8 7, = 6, 7 8 9 10.
    assert addition_ids("653", "049", "2070") == [id - 6 for id in (9, 8, 7, 6, 9, 8, 7, 6, 7, 8, 9, 10)]


def test_a_mark_has_the_id_of_the_digit_beside_it(tokenizer: MetaTokenizer) -> None:
    task = build("addition", coupled=True, placement="hint", n_digits=(3, 3))
    examples = task.examples(20, 0)
    for i in range(20):
        ids = [int(pair.split(":")[-1]) for pair in ids_of(task, examples, i).split()]
        assert ids == [3, 3, 2, 1, 1, 0, 3, 3, 2, 1, 1, 0, 1, 2, 3, 4]
        assert task.text(examples[i]).split().index("<|meta|>") == 0
    bare, plain = remove_marks(examples), build("addition", coupled=True, placement="none", n_digits=(3, 3))
    np.testing.assert_array_equal(bare.position_ids, plain.examples(20, 0).position_ids)
    text = build("addition", rendering="text", tokenizer=tokenizer, coupled=True, n_digits=(3, 3)).examples(20, 0)
    assert set(text.position_ids[(text.flags & META) > 0].tolist()) == {3, 1}  # type: ignore[index]


def test_one_addend_has_all_digits_and_a_sum_a_digit_more() -> None:
    task = build("addition", placement="none", n_digits=(4, 4))
    examples = task.examples(400, 0)
    lengths = np.zeros((400, 2), dtype=int)
    for i in range(400):
        a, rest = task.text(examples[i]).replace(" ", "").split("|")
        b, c = rest.split("=")
        assert (len(a), len(b), len(c)) == (4, 4, 5)
        lengths[i] = len(str(int(a))), len(str(int(b)))
    assert (lengths.max(axis=1) == 4).all()
    assert set(lengths.min(axis=1).tolist()) == {1, 2, 3, 4}
    assert (lengths[:, 0] < lengths[:, 1]).any()
    assert (lengths[:, 0] > lengths[:, 1]).any()


def test_carries_run_as_far_as_they_must() -> None:
    np.testing.assert_array_equal(carried(np.array([[10, 9, 9, 0], [81 * 30, 0, 0, 0]])), [[0, 0, 0, 1], [0, 3, 4, 2]])


def test_options_that_cannot_work_are_refused() -> None:
    with pytest.raises(UserError, match=r"task_options\.symbols: 9 numbers; expected at least 10, the digits"):
        build("addition", symbols=[9, 16, 16])
    with pytest.raises(UserError, match=r"n_factor_digits=\[0, 2\]: expected two integers"):
        build("multiplication", n_factor_digits=(0, 2))
    with pytest.raises(UserError, match=r"data\.task_options\.coupled=1: expected true or false"):
        build("addition", coupled=1)
