"""Mask rules: the matrices of their docstrings, and the paper's meta rule."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_metatok.model.attention import MetaBlocks, masks
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import Causal, MetaToMeta, SameDocument

metas = st.integers(1, 17).flatmap(lambda t: st.lists(st.booleans(), min_size=t, max_size=t))


def picture(mask: torch.Tensor) -> str:
    """A mask as its docstring draws it."""
    return "\n".join(" ".join("x" if seen else "." for seen in row) for row in mask.tolist())


def test_the_causal_mask_is_the_matrix_that_its_docstring_draws() -> None:
    assert picture(masks.causal(4)) in inspect.cleandoc(masks.causal.__doc__ or "")


@given(metas)
@settings(deadline=None, max_examples=40)
def test_the_meta_rule_is_symmetric_and_triangular_with_the_causal_one(is_meta: list[bool]) -> None:
    meta_mask_T = torch.tensor(is_meta)
    facts = Facts.of(len(is_meta), meta_mask_T[None])
    rule = MetaToMeta().mask(facts)[0]
    assert torch.equal(rule, rule.T)
    seen = (MetaToMeta() & Causal()).mask(facts)[0]
    n = int(meta_mask_T.sum())
    assert torch.equal(seen[meta_mask_T][:, meta_mask_T], torch.ones(n, n, dtype=torch.bool).tril())
    assert int(seen.sum()) == n * (n + 1) // 2


def test_the_last_queries_of_a_causal_mask_are_its_last_rows() -> None:
    assert torch.equal(masks.causal(2, 5), masks.causal(5)[-2:])


def test_an_additive_mask_is_zero_soft_or_minus_infinity() -> None:
    soft = MetaToMeta().mask(Facts.of(2, torch.tensor([[False, True]])))[0]
    mask = masks.additive(masks.causal(2), soft, -7.0, torch.float32)
    assert mask.tolist() == [[-7.0, -torch.inf], [-7.0, 0.0]]


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_xformers_blocks_materialise_to_the_same_rule(data: st.DataObject) -> None:
    pytest.importorskip("xformers.ops.fmha.attn_bias")
    n, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 12))
    flags = data.draw(st.lists(st.booleans(), min_size=n * length, max_size=n * length))
    jumps = data.draw(st.lists(st.integers(0, 1), min_size=n * length, max_size=n * length))
    meta_mask_BT = torch.tensor(flags).view(n, length)
    document_ids_BT = torch.tensor(jumps).view(n, length).cumsum(-1)
    blocks = MetaBlocks.find(meta_mask_BT, document_ids_BT)
    if not blocks.lengths:
        return
    sample_BT = torch.arange(n)[:, None].expand(n, length)
    facts = Facts.of(n * length, meta_mask_BT.view(1, -1), (document_ids_BT + 100 * sample_BT).view(1, -1))
    ours = (SameDocument() & Causal() & MetaToMeta()).mask(facts)[0][blocks.rows_R][:, blocks.rows_R]
    theirs = blocks.to_xformers().materialize((len(blocks.rows_R), len(blocks.rows_R)))
    assert torch.equal(ours, theirs == 0)
