"""Every encoding that turns or is added, in the whole model: cached steps are the full pass, documents are apart."""

from typing import Any

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.model import KVCache, TransformerConfig, generate
from lightning_metatok.model.attention.backends import blocked
from tests.model.helpers import batch, tiny

DYNAMIC = {"scaling": "dynamic", "factor": 2.0, "original_max_positions": 6}
ENCODINGS: list[dict[str, Any]] = [
    {"position": "sinusoidal"},
    {"position": "coupled"},
    {"position": "learned", "position_options": {"random_start": True}},
    {"position": "rotary", "position_options": {"pairing": "interleaved", "fraction": 0.5}},
    {"position": "rotary", "position_options": {"scaling": "yarn", "factor": 4.0, "original_max_positions": 6}},
    {"position": "rotary", "position_options": DYNAMIC},
    {"position": "rotary", "position_options": {**DYNAMIC, "fraction": 0.5, "pairing": "interleaved"}},
    {"position": "xpos", "position_options": {"scale_base": 30.0}},
    {"position": "fope"},
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@pytest.mark.parametrize("drop", ["none", "both"])
@torch.no_grad()
def test_chunks_and_single_steps_equal_the_full_pass(encoding: dict[str, Any], drop: str) -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(**encoding, drop_positions=drop), batch()
    meta_mask_BT[0] = False
    full = model(tokens_BT, meta_mask_BT)
    cache, start, pieces = KVCache(model.config.n_layers), 0, []
    for size in (9, 1, 1, 1, 5, 1, 3):
        part = slice(start, start + size)
        pieces.append(model(tokens_BT[:, part], meta_mask_BT[:, part], cache=cache))
        start += size
    # Float32 sums in another order, at logits of size 1 to 10.
    torch.testing.assert_close(torch.cat(pieces, dim=1), full, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_dynamic_generation_is_the_argmax_of_full_passes_and_not_that_of_plain_rotary() -> None:
    tokens_BT, meta_mask_BT = batch()
    model = tiny(position_options=DYNAMIC)
    out = generate(model, tokens_BT, meta_mask_BT, max_new_tokens=8, temperature=0)
    grown, mask = tokens_BT, meta_mask_BT
    for _ in range(8):
        grown = torch.cat((grown, model(grown, mask)[:, -1:].argmax(-1)), dim=1)
        mask = torch.nn.functional.pad(mask, (0, 1))
    assert torch.equal(out, grown)
    plain = tiny()
    torch.testing.assert_close(model(tokens_BT, meta_mask_BT)[:, :6], plain(tokens_BT, meta_mask_BT)[:, :6])
    assert not torch.allclose(model(tokens_BT, meta_mask_BT)[:, 8:], plain(tokens_BT, meta_mask_BT)[:, 8:], atol=1e-2)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@torch.no_grad()
def test_packed_documents_are_as_if_alone(encoding: dict[str, Any]) -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(**encoding), batch(n=2)
    lengths = [6, 11, 4]
    document_ids_BT = torch.arange(3).repeat_interleave(torch.tensor(lengths)).expand(2, -1)
    position_ids_BT = torch.cat([torch.arange(n) for n in lengths]).expand(2, -1)
    packed = model(tokens_BT, meta_mask_BT, position_ids_BT, document_ids_BT)
    start = 0
    for n in lengths:
        part = slice(start, start + n)
        alone = model(tokens_BT[:, part], meta_mask_BT[:, part])
        torch.testing.assert_close(packed[:, part], alone, atol=2e-5, rtol=1e-5)
        start += n


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@torch.no_grad()
def test_bfloat16_is_near_float32_and_weights_are_all_in_the_checkpoint(encoding: dict[str, Any]) -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(**encoding), batch()
    again = tiny(seed=1, **encoding)
    again.load_state_dict(model.state_dict())
    full = model(tokens_BT, meta_mask_BT)
    assert torch.equal(again(tokens_BT, meta_mask_BT), full)
    rough = again.bfloat16()(tokens_BT, meta_mask_BT)
    assert rough.dtype == torch.bfloat16
    # 8 bits of mantissa, two layers: a few percent of the logits' spread.
    assert (rough.float() - full).abs().mean() < 0.15 * full.std()


def test_dynamic_scaling_in_blocks_of_rows_is_the_same_in_logits_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens_BT, meta_mask_BT = batch()
    monkeypatch.setattr(blocked, "BLOCK", 400)  # a few rows
    results = []
    for backend in ("reference", "blocked"):
        model = tiny(position_options={**DYNAMIC, "fraction": 0.5}, attention_backend=backend)
        logits = model(tokens_BT, meta_mask_BT)
        (logits * torch.arange(logits.numel()).view_as(logits).sin()).sum().backward()
        results.append([logits.detach(), *(p.grad for p in model.parameters())])
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-4)


def test_dynamic_scaling_needs_a_backend_that_takes_scores() -> None:
    with pytest.raises(UserError, match=r"attention_backend='sdpa': expected one of auto, reference, "):
        TransformerConfig(1, 1, 16, 50, attention_backend="sdpa", position_options=DYNAMIC)
    TransformerConfig(1, 1, 16, 50, attention_backend="sdpa")
