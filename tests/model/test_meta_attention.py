"""Sparse meta-attention equals the paper's dense masked one, whatever the meta-tokens' number and places."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_metatok.model import TransformerConfig, positions
from lightning_metatok.model.attention import MetaBlocks, meta_attention
from lightning_metatok.model.attention.backends.reference import attend as reference
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.layers import Attention, AttentionPlan, GatheredAttention
from lightning_metatok.model.attention.patterns import Causal, MetaToMeta, SameDocument
from lightning_metatok.model.recording import recorded
from tests.model.helpers import batch, tiny


@st.composite
def batches(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A meta mask, any rows of it empty or full, and documents or none; documents may even be interleaved."""
    n, length = draw(st.integers(1, 4)), draw(st.integers(1, 19))
    rows = [
        draw(
            st.one_of(
                st.just([False] * length),
                st.just([True] * length),
                st.lists(st.booleans(), min_size=length, max_size=length),
            )
        )
        for _ in range(n)
    ]
    ids = draw(st.none() | st.lists(st.integers(-1, 3), min_size=n * length, max_size=n * length))
    return torch.tensor(rows), None if ids is None else torch.tensor(ids).view(n, length)


@pytest.mark.parametrize("backend", ["auto", "reference", "sdpa"])
@given(batches())
@settings(deadline=None, max_examples=40)
def test_gathered_equals_dense_masked_in_outputs_and_gradients(
    backend: str, drawn: tuple[torch.Tensor, torch.Tensor | None]
) -> None:
    meta_mask_BT, document_ids_BT = drawn
    n, length = meta_mask_BT.shape
    leaves = [torch.randn(n, 2, length, 4, requires_grad=True) for _ in range(3)]
    rule = Causal() & MetaToMeta() & SameDocument()
    mask = rule.mask(Facts.of(length, meta_mask_BT, document_ids_BT))[:, None]
    dense = reference(*leaves, mask=mask)
    sparse = meta_attention(*leaves, meta_mask_BT, document_ids_BT=document_ids_BT, backend=backend)
    torch.testing.assert_close(sparse, dense, atol=1e-6, rtol=1e-5)
    assert not sparse.transpose(1, 2)[~meta_mask_BT].any()
    if not meta_mask_BT.any():
        return
    weights = torch.randn_like(dense)
    ours = torch.autograd.grad((sparse * weights).sum(), leaves)
    oracle = torch.autograd.grad((dense * weights).sum(), leaves)
    torch.testing.assert_close(ours, oracle, atol=2e-6, rtol=1e-5)


@given(batches())
@settings(deadline=None, max_examples=40)
def test_padding_and_taking_it_off_gives_the_rows_back(
    drawn: tuple[torch.Tensor, torch.Tensor | None],
) -> None:
    blocks = MetaBlocks.find(*drawn)
    if not blocks.lengths:
        assert not drawn[0].any()
        return
    assert sum(blocks.lengths) == len(blocks.rows_R) == int(drawn[0].sum())
    rows = torch.randn(len(blocks.rows_R), 3)
    assert torch.equal(blocks.unpad(blocks.pad(rows)), rows)


def test_ordinary_tokens_cannot_reach_meta_tokens_even_as_nan() -> None:
    meta_mask_BT = torch.tensor([[False, True, False, True, True], [False, False, True, False, False]])
    q, k, v = torch.randn(3, 2, 2, 5, 4).unbind()
    expected = meta_attention(q, k, v, meta_mask_BT)
    for x in (q, k, v):
        x.transpose(1, 2)[~meta_mask_BT] = torch.nan
    assert torch.equal(meta_attention(q, k, v, meta_mask_BT), expected)


def test_when_every_token_is_a_meta_token_it_is_causal_attention_with_the_same_weights() -> None:
    config = TransformerConfig(1, 2, 16, 50, bias=True)
    causal, meta = Attention(config), GatheredAttention(config)
    meta.load_state_dict(causal.state_dict())
    rotary = positions.build("rotary", n_layers=2, n_heads=2, head_dim=8, d_model=16, max_positions=9)
    x_BTD, ids_BT = torch.randn(3, 9, 16), torch.arange(9).expand(3, 9)
    expected = causal(x_BTD, AttentionPlan(rotary, rotary.prepare(ids_BT, None)))
    blocks = MetaBlocks.find(torch.ones(3, 9, dtype=torch.bool))
    plan = AttentionPlan(rotary, rotary.prepare(ids_BT.reshape(1, -1), None), blocks=blocks)
    torch.testing.assert_close(meta(x_BTD.flatten(0, 1), plan).view(3, 9, 16), expected, atol=1e-6, rtol=1e-5)


def test_a_mask_of_numbers_is_refused() -> None:
    with pytest.raises(AssertionError, match="must be bool"):
        MetaBlocks.find(torch.ones(2, 3))


@pytest.mark.parametrize("options", [{}, {"position": "alibi"}, {"position": "fire"}], ids=str)
@torch.no_grad()
def test_a_batch_whose_extra_tokens_are_all_taken_away_is_a_plain_one(options: dict[str, Any]) -> None:
    """A mask without any extra token is no mask; encodings that transform scores have no rows to do it for."""
    model, (tokens_BT, meta_mask_BT) = tiny(**options), batch()
    nothing_BT = torch.zeros_like(meta_mask_BT)
    with recorded(model) as recording:
        out = model(tokens_BT, nothing_BT)
    assert torch.equal(out, model(tokens_BT))
    assert not recording.layers[0].after_BTD.isnan().any()
