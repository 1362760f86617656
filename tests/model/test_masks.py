"""Mask rules: the matrices of their docstrings, and the paper's meta rule."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_metatok.model.attention import MetaBlocks, masks

metas = st.integers(1, 17).flatmap(lambda t: st.lists(st.booleans(), min_size=t, max_size=t))


def picture(mask: torch.Tensor) -> str:
    """A mask as its docstring draws it."""
    return "\n".join(" ".join("x" if seen else "." for seen in row) for row in mask.tolist())


@pytest.mark.parametrize(
    ("rule", "mask"),
    [
        (masks.causal, masks.causal(4)),
        (masks.same_document, masks.same_document(torch.tensor([0, 0, 1, 1]))),
        (masks.meta_to_meta, masks.meta_to_meta(torch.tensor([False, True, False, True]))),
    ],
)
def test_each_rule_is_the_matrix_that_its_docstring_draws(rule: object, mask: torch.Tensor) -> None:
    assert picture(mask) in inspect.cleandoc(rule.__doc__ or "")


@given(metas)
@settings(deadline=None, max_examples=40)
def test_the_meta_rule_is_symmetric_and_triangular_with_the_causal_one(is_meta: list[bool]) -> None:
    meta_mask_T = torch.tensor(is_meta)
    rule = masks.meta_to_meta(meta_mask_T)
    assert torch.equal(rule, rule.T)
    seen = rule & masks.causal(len(is_meta))
    n = int(meta_mask_T.sum())
    assert torch.equal(seen[meta_mask_T][:, meta_mask_T], torch.ones(n, n, dtype=torch.bool).tril())
    assert int(seen.sum()) == n * (n + 1) // 2


def test_the_last_queries_of_a_causal_mask_are_its_last_rows() -> None:
    assert torch.equal(masks.causal(2, 5), masks.causal(5)[-2:])


def test_an_additive_mask_is_zero_soft_or_minus_infinity() -> None:
    soft = masks.meta_to_meta(torch.tensor([False, True]))
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
    rule = masks.same_document((document_ids_BT + 100 * sample_BT).flatten()) & masks.causal(n * length)
    ours = (rule & masks.meta_to_meta(meta_mask_BT.flatten()))[blocks.rows_R][:, blocks.rows_R]
    theirs = blocks.to_xformers().materialize((len(blocks.rows_R), len(blocks.rows_R)))
    assert torch.equal(ours, theirs == 0)
