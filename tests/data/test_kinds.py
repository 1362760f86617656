"""Kinds of meta-tokens: which stands where, their ids, and text that never spells one."""

import hashlib
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_metatok.data import InjectionRule, MetaTokenizer, inject, remove_meta
from lightning_metatok.data.kinds import MOST, check_used, ids_in_rows, is_meta, next_ids
from lightning_metatok.data.placement import Written, build
from lightning_metatok.data.while_writing import WhileWriting
from lightning_metatok.errors import UserError
from lightning_metatok.meta_tokens import without_kinds
from lightning_metatok.tasks import build as build_task
from lightning_metatok.tasks import symbol_tokenizer
from tests.data.foreign import byte_level, llama

TEXTS = ["the old miller", "<|meta_1|> and <|meta|>, <|meta_2|>", "a<0x41>▁b<|meta_1|>"]


@pytest.fixture(scope="module")
def tokenizer() -> MetaTokenizer:
    return MetaTokenizer.train(["one two three, four"], 270)


def blocks(B: int, S: int) -> torch.Tensor:
    return torch.arange(B * S).view(B, S) + 100


@given(
    st.sampled_from(["random", "periodic", "chunk_end", "prefix", "suffix"]),
    st.integers(1, 5),
    st.integers(0, 7),
    st.sampled_from([None, 24]),
)
def test_the_ith_of_a_row_has_kind_i_mod_n(placement: str, n: int, seed: int, crop_to: int | None) -> None:
    ids = list(range(1, n + 1))
    rule = build(placement, {"c": 2} if placement == "chunk_end" else {})
    options = {"placement": rule, "count": 4 if placement in ("prefix", "suffix") else 7}
    one, several = (
        inject(blocks(3, 24), meta_id=of, seed=seed, index=2, crop_to=crop_to, **options) for of in (1, ids)
    )
    assert torch.equal(one.meta_mask_BT, several.meta_mask_BT)
    assert torch.equal(remove_meta(one.tokens_BT, one.meta_mask_BT), remove_meta(several.tokens_BT, one.meta_mask_BT))
    assert (one.tokens_BT[one.meta_mask_BT] == 1).all()
    for row_T, mask_T in zip(several.tokens_BT, several.meta_mask_BT, strict=True):
        assert row_T[mask_T].tolist() == [ids[i % n] for i in range(int(mask_T.sum()))]
    assert torch.equal(is_meta(several.tokens_BT, ids), several.meta_mask_BT)


def test_a_chunk_may_end_with_several_and_the_kth_of_each_is_the_same() -> None:
    rule = InjectionRule(placement="chunk_end", options={"c": 3, "n": 2})
    options = {"block_length": 10, "meta_id": [1, 2], "seed": 0, "index": 0}
    assert rule.apply(blocks(1, 10), **options).tokens_BT.tolist() == [
        [100, 101, 102, 1, 2, 103, 104, 105, 1, 2, 106, 107, 108, 1, 2, 109]
    ]
    within = InjectionRule(placement="chunk_end", length="within", options={"c": 3, "n": 2})
    assert (within.source_length(10), within.n_meta(10)) == (6, 4)
    assert within.apply(blocks(1, 6), **options).tokens_BT.tolist() == [[100, 101, 102, 1, 2, 103, 104, 105, 1, 2]]
    with pytest.raises(UserError, match=r"^data\.meta_placement_options\.n=0"):
        InjectionRule(placement="chunk_end", options={"c": 3, "n": 0})


@pytest.mark.parametrize("c", [1, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_while_writing_the_same_come_as_in_a_block(c: int, n: int) -> None:
    rule, ids = InjectionRule(placement="chunk_end", options={"c": c, "n": n}), [1, 2]
    marks, written = WhileWriting(rule, 0, 0, seed=0), list[int]()
    for id in range(100, 112):
        before = marks.n_extra
        written += [id, *next_ids(ids, before, marks.take(id))]
    block = rule.apply(blocks(1, 12), block_length=12, meta_id=ids, seed=0, index=0).tokens_BT[0].tolist()
    assert written == block
    assert build("random").comes_next(Written(1, 0, 5, 0.1, 0.99, frozenset())) == 0


def test_rows_one_after_the_other_count_each_for_itself() -> None:
    is_meta_of_rows = np.array([0, 1, 1, 0, 1, 1, 0, 0, 1], dtype=bool)
    found = ids_in_rows(is_meta_of_rows, np.array([0, 4, 7, 9]), [50, 60])
    assert found[is_meta_of_rows].tolist() == [50, 60, 50, 60, 50]


@pytest.mark.parametrize("make", [byte_level, llama])
def test_ids_come_at_the_end_and_text_is_read_as_before(make: object) -> None:
    before = MetaTokenizer.from_json(make().to_str())  # type: ignore[operator]
    after = before.with_kinds(3)
    assert after.meta_ids == (before.meta_id, before.vocab_size, before.vocab_size + 1)
    assert (after.eos_id, after.vocab_size) == (before.eos_id, before.vocab_size + 2)
    assert after.encode_batch(TEXTS) == before.encode_batch(TEXTS)
    for text, ids in zip(TEXTS, after.encode_documents(TEXTS), strict=True):
        assert set(ids).isdisjoint(after.meta_ids)
        assert after.decode(ids) == text
    assert after.encode_prompt("<|meta_2|><|meta|>") == [after.meta_ids[2], after.meta_id]
    assert after.decode([after.meta_ids[1], after.meta_id], skip_meta=False) == "<|meta_1|><|meta|>"
    assert after.decode([*after.meta_ids]) == ""
    assert not after.bytes_V[list(after.meta_ids)].any()


def test_kinds_are_read_again_and_what_text_becomes_is_told_apart_from_them(tokenizer: MetaTokenizer) -> None:
    three = tokenizer.with_kinds(3)
    again = MetaTokenizer.from_json(three.to_json())
    assert (again.meta_ids, again.fingerprint()) == (three.meta_ids, three.fingerprint())
    assert again.with_kinds(3) is again
    assert tokenizer.with_kinds(1) is tokenizer
    assert tokenizer.with_kinds(2).with_kinds(3).meta_ids == three.meta_ids
    digests = [hashlib.sha256(without_kinds(one.to_json().encode())).hexdigest() for one in (tokenizer, three)]
    assert digests[0] == digests[1]
    assert json.loads(without_kinds(three.to_json().encode())) == json.loads(tokenizer.to_json())
    masked = tokenizer.with_mask().with_kinds(2)
    assert (masked.mask_id, masked.meta_ids[1]) == (tokenizer.vocab_size, tokenizer.vocab_size + 1)


def test_numbers_of_kinds_that_cannot_be(tokenizer: MetaTokenizer) -> None:
    for n in (0, -1, MOST + 1):
        with pytest.raises(UserError, match=rf"^data\.meta_kinds={n}: expected 1 to {MOST}$"):
            tokenizer.with_kinds(n)
    with pytest.raises(UserError, match=r"^data\.meta_kinds=2: tokenizer has 3 kinds of meta-tokens; expected 3$"):
        tokenizer.with_kinds(3).with_kinds(2)
    with pytest.raises(UserError, match=r"^data\.meta_kinds=3: expected up to 2, the meta-tokens of a block$"):
        check_used(3, 2, "a block")
    check_used(1, 0, "a block")


def test_marks_of_a_task_have_their_kinds_in_turn() -> None:
    one, two = (
        build_task("list_recall", tokenizer=symbol_tokenizer().with_kinds(n), placement="every").examples(5, seed=1)
        for n in (1, 2)
    )
    ids = symbol_tokenizer().with_kinds(2).meta_ids
    assert one.tokens.tolist() == [ids[0] if token in ids else token for token in two.tokens.tolist()]
    for start, end in zip(two.offsets, two.offsets[1:], strict=False):
        marks = [token for token in two.tokens[start:end].tolist() if token in ids]
        assert len(marks) > 2
        assert marks == [ids[i % 2] for i in range(len(marks))]
