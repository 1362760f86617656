"""Dropout inside the second attention."""

import pytest
import torch
from torch import Tensor

from lightning_metatok.model import MetaTransformer
from tests.model.helpers import tiny

MARKS = [2, 5, 9, 14]


def second_update(model: MetaTransformer, seed: int) -> Tensor:
    """What the second attention of the only block adds at the four marks, [4, D]; the other branches add nothing."""
    tokens_BT = torch.arange(20)[None]
    meta_mask_BT = torch.zeros(1, 20, dtype=torch.bool)
    meta_mask_BT[0, MARKS] = True
    seen: list[Tensor] = []
    hook = model.blocks[0].register_forward_hook(lambda _, inputs, out: seen.append(out - model.embedding(tokens_BT)))
    torch.manual_seed(seed)
    model(tokens_BT, meta_mask_BT)
    hook.remove()
    assert not seen[0][0, ~meta_mask_BT[0]].any() or model.config.mechanism == "matched"
    return seen[0][0, meta_mask_BT[0]]


@pytest.mark.parametrize("mechanism", ["meta", "matched"])
@torch.no_grad()
def test_what_the_second_attention_adds_is_dropped_out_in_training(mechanism: str) -> None:
    model = tiny(n_layers=1, mechanism=mechanism, dropout=0.5)
    block = model.blocks[0]
    block.attention.projections.out.weight.zero_()
    block.mlp.down.weight.zero_()
    expected = second_update(model, 0)
    model.train()
    model.dropout.eval()  # of the embeddings
    block.meta_attention.dropout = 0.0  # of the weights between marks
    updates = torch.stack([second_update(model, seed) for seed in range(200)])
    kept = updates.abs() > 1e-6
    torch.testing.assert_close(updates, torch.where(kept, 2 * expected, 0), atol=1e-5, rtol=1e-5)
    assert 0.4 < float(kept.float().mean()) < 0.6  # of 12,800


@pytest.mark.parametrize("mechanism", ["meta", "matched"])
@torch.no_grad()
def test_weights_of_the_second_attention_are_dropped_out_in_training(mechanism: str) -> None:
    model = tiny(n_layers=1, mechanism=mechanism, dropout=0.5, attention_backend="reference")
    block = model.blocks[0]
    block.attention.projections.out.weight.zero_()
    block.mlp.down.weight.zero_()
    expected = second_update(model, 0)
    model.train()
    for dropout in (model.dropout, block.dropout):
        dropout.eval()
    updates = torch.stack([second_update(model, seed) for seed in range(600)])
    spread = updates.std(dim=0)
    assert (spread.amax(dim=-1) > 0.05).all()
    # The mean of 600 draws, each kept with a half and doubled: six standard errors.
    assert ((updates.mean(dim=0) - expected).abs() < 6 * spread / 600**0.5 + 1e-5).all()
