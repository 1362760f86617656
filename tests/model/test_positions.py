"""Positional encodings: right formulas, and every hook drops positions where keep is False."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from lightning_metatok.errors import UserError
from lightning_metatok.model import positions

SIZES = {"n_layers": 2, "n_heads": 2, "head_dim": 8, "d_model": 16, "max_positions": 32}


def test_rotary_equals_hugging_face_at_scattered_positions() -> None:
    q, k = torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    ids = torch.tensor([[0, 3, 4, 900, 7], [5, 5, 1, 0, 2]])
    angles = ids[..., None] * 10000.0 ** -(torch.arange(0, 8, 2) / 8)
    full = torch.cat((angles, angles), dim=-1)
    expected = apply_rotary_pos_emb(q, k, full.cos(), full.sin())
    torch.testing.assert_close(positions.build("rotary", **SIZES).rotate(q, k, ids, None), expected)


@given(i=st.integers(0, 2000), j=st.integers(0, 2000), shift=st.integers(0, 2000))
@settings(deadline=None, max_examples=25)
def test_rotary_scores_depend_on_the_distance_only(i: int, j: int, shift: int) -> None:
    rotary = positions.build("rotary", **SIZES)
    generator = torch.Generator().manual_seed(i)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator).expand(2, 1, 1, 2, 8)
    here_q, here_k = rotary.rotate(q, k, torch.tensor([[i, j]]), None)
    there_q, there_k = rotary.rotate(q, k, torch.tensor([[i + shift, j + shift]]), None)
    # Float32 angles of some thousand radians are right to 1e-4 radians or so.
    here, there = here_q[0, 0, 0] @ here_k[0, 0, 1], there_q[0, 0, 0] @ there_k[0, 0, 1]
    torch.testing.assert_close(here, there, atol=5e-3, rtol=0)


def test_rotary_leaves_dropped_rows_as_they_are_and_turns_the_others() -> None:
    q, k = torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8)
    ids, keep = torch.arange(1, 5)[None], torch.tensor([[True, False, True, False]])
    rotary = positions.build("rotary", **SIZES)
    for before, dropped, full in zip(
        (q, k), rotary.rotate(q, k, ids, keep), rotary.rotate(q, k, ids, None), strict=True
    ):
        assert torch.equal(dropped[:, :, ~keep[0]], before[:, :, ~keep[0]])
        assert torch.equal(dropped[:, :, keep[0]], full[:, :, keep[0]])
        assert not torch.equal(full[:, :, ~keep[0]], before[:, :, ~keep[0]])


def test_rotary_keeps_the_dtype_and_its_angles_are_float32() -> None:
    q = torch.randn(1, 2, 2, 8).bfloat16()
    rotary = positions.build("rotary", **SIZES).bfloat16()
    turned, _ = rotary.rotate(q, q, torch.tensor([[1000, 1001]]), None)
    assert turned.dtype == torch.bfloat16
    cos, _ = rotary.prepare(torch.tensor([[1000, 1001]]), None)
    torch.testing.assert_close(cos[0, 0, :, 0], torch.tensor([1000.0, 1001.0]).cos())


def test_learned_adds_the_rows_of_its_table_and_zero_where_dropped() -> None:
    learned = positions.build("learned", **SIZES)
    ids, keep = torch.tensor([[4, 0, 31]]), torch.tensor([[True, False, True]])
    assert torch.equal(learned.embed(ids, None), learned.table.weight[ids])
    assert torch.equal(learned.embed(ids, keep)[0, 1], torch.zeros(16))
    assert torch.equal(learned.embed(ids, keep)[0, 2], learned.table.weight[31])


def test_none_does_nothing() -> None:
    none, q, ids = positions.build("none", **SIZES), torch.randn(1, 2, 3, 8), torch.arange(3)[None]
    scores = torch.randn(1, 2, 3, 3)
    assert none.embed(ids, None) is None
    assert none.rotate(q, q, ids, None) == (q, q)
    assert none.score(scores, ids, None) is scores


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'learned'"):
        positions.build("learnd", **SIZES)
