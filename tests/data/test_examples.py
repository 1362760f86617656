"""Examples keep every token through taking, saving and batching; only answers are scored."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_metatok.data.batch import NOT_SCORED
from lightning_metatok.data.examples import ANSWER, BODY, META, SOURCE, Examples, concatenate


def made(lengths: list[int], seed: int = 0) -> Examples:
    """Prompts of random tokens and flags."""
    generator = np.random.default_rng(seed)
    total = sum(lengths)
    return Examples(
        generator.integers(2, 1000, total).astype(np.int32),
        generator.integers(0, 256, total).astype(np.uint8),
        np.concatenate([[0], np.cumsum(lengths)]),
        {"length": np.array(lengths), "k": generator.integers(0, 9, len(lengths))},
    )


def small() -> Examples:
    """Two prompts: `5 M 6 | 7`, `8 | 9 4`, answers behind the bar; M is a mark."""
    tokens = np.array([5, 1, 6, 7, 8, 9, 4], dtype=np.int32)
    flags = np.array([BODY, META, BODY | SOURCE, ANSWER, BODY, ANSWER, ANSWER], dtype=np.uint8)
    return Examples(tokens, flags, np.array([0, 4, 7]), {"k": np.array([3, 1])})


def assert_same(ours: Examples, theirs: Examples) -> None:
    for name in ("tokens", "flags", "offsets"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
        assert getattr(ours, name).dtype == getattr(theirs, name).dtype
    assert list(ours.slices) == list(theirs.slices)
    for name, values in ours.slices.items():
        np.testing.assert_array_equal(values, theirs.slices[name])


def test_an_example_has_its_tokens_flags_answer_and_slices() -> None:
    examples = small()
    assert len(examples) == 2
    second = examples[1]
    assert second.tokens.tolist() == [8, 9, 4]
    assert second.flags.tolist() == [BODY, ANSWER, ANSWER]
    assert second.answer.tolist() == [9, 4]
    assert second.slices == {"k": 1}
    assert examples.lengths.tolist() == [4, 3]
    assert examples.rows().tolist() == [0, 0, 0, 0, 1, 1, 1]


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8), data=st.data())
def test_taken_examples_are_the_same_in_the_order_asked(lengths: list[int], data: Any) -> None:
    examples = made(lengths)
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=10))
    taken = examples.take(chosen)
    assert len(taken) == len(chosen)
    for ours, i in enumerate(chosen):
        np.testing.assert_array_equal(taken[ours].tokens, examples[i].tokens)
        np.testing.assert_array_equal(taken[ours].flags, examples[i].flags)
        assert taken[ours].slices == examples[i].slices


def test_parts_put_together_are_the_whole() -> None:
    whole = made([3, 1, 7, 2])
    assert_same(concatenate([whole.take([0]), whole.take([1, 2]), whole.take([]), whole.take([3])]), whole)


def test_saved_examples_come_back_memory_mapped(tmp_path: Path) -> None:
    examples = made([3, 1, 7, 2])
    examples.save(tmp_path)
    loaded = Examples.load(tmp_path)
    assert_same(loaded, examples)
    for array in (loaded.tokens, loaded.flags, loaded.offsets, *loaded.slices.values()):
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
    assert_same(loaded.take([2, 0]), examples.take([2, 0]))
    assert not isinstance(loaded.take([2]).tokens, np.memmap)
    ours, theirs = loaded.batch([1, 2]), examples.batch([1, 2])
    assert torch.equal(ours.tokens_BT, theirs.tokens_BT)


def test_a_batch_scores_answers_alone_and_fills_up_on_the_right() -> None:
    batch = small().batch()
    not_scored = NOT_SCORED
    assert batch.tokens_BT.tolist() == [[5, 1, 6, 7], [8, 9, 4, 0]]
    assert batch.targets_BT.tolist() == [
        [not_scored, not_scored, 7, not_scored],
        [9, 4, not_scored, not_scored],
    ]
    assert batch.meta_mask_BT.tolist() == [[False, True, False, False], [False] * 4]
    assert batch.document_ids_BT.tolist() == [[0, 0, 0, 0], [0, 0, 0, -1]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 3]] * 2
    assert small().batch([1]).tokens_BT.tolist() == [[8, 9, 4]]


@pytest.mark.parametrize("chosen", [[0], [2, 0], [3, 3, 1]])
def test_a_batch_holds_the_chosen_examples(chosen: list[int]) -> None:
    examples = made([3, 1, 7, 2])
    batch = examples.batch(chosen)
    assert batch.tokens_BT.shape == (len(chosen), max(examples.lengths[chosen]))
    for row, i in enumerate(chosen):
        length = examples.lengths[i]
        np.testing.assert_array_equal(batch.tokens_BT[row, :length], examples[i].tokens)
        np.testing.assert_array_equal(batch.meta_mask_BT[row, :length], (examples[i].flags & META) > 0)
        scored = np.flatnonzero(batch.targets_BT[row].numpy() != NOT_SCORED) + 1
        # The first token follows nothing, so nothing predicts it.
        np.testing.assert_array_equal(scored, np.flatnonzero((examples[i].flags & ANSWER)[1:]) + 1)
        assert (batch.document_ids_BT[row, length:] == -1).all()
        assert not batch.meta_mask_BT[row, length:].any()
