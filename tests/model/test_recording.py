"""Recording leaves the model as it is, and what is recorded is what the model computed."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.model.attention.backends import reference
from lightning_metatok.model.recording import recorded

SELF, META = "self_attention", "meta_attention"
ARMS: dict[str, dict[str, Any]] = {
    "plain": {"mechanism": "none"},
    "meta": {},
    "meta in one layer": {"mechanism_options": {"layers": [1]}},
    "matched": {"mechanism": "matched"},
    "finite fill": {"mechanism_options": {"fill": -10.0}},
    "meta shared": {"mechanism_options": {"shared": True}},
    "shared layers": {"shared_layers": True},
    "post-norm": {"norm": "post"},
    "post-norm, matched": {"norm": "post", "mechanism": "matched"},
    "scores transformed": {"position": "alibi"},
    "reference": {"attention_backend": "reference"},
}


def make(**options: Any) -> MetaTransformer:
    torch.manual_seed(0)
    model = MetaTransformer(
        TransformerConfig(**{"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 32, "bias": True, **options})
    )
    for parameter in model.parameters():  # far from the small start, so that each branch counts
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def prompts() -> tuple[Tensor, Tensor]:
    """Three samples with two, none and five meta-tokens, so that blocks of meta rows are padded."""
    tokens_BT = torch.arange(33).view(3, 11) % 30
    meta_mask_BT = torch.zeros(3, 11, dtype=torch.bool)
    meta_mask_BT[0, [2, 7]] = meta_mask_BT[2, [0, 1, 4, 8, 9]] = True
    return tokens_BT.masked_fill(meta_mask_BT, 31), meta_mask_BT


@pytest.mark.parametrize("arm", ARMS)
@torch.no_grad()
def test_outputs_are_the_same_bit_for_bit(arm: str) -> None:
    model, batch = make(**ARMS[arm]), prompts()
    before = model(*batch)
    with recorded(model):
        during = model(*batch)
    assert torch.equal(before, during)
    assert torch.equal(before, model(*batch))


@pytest.mark.parametrize("arm", ARMS)
@torch.no_grad()
def test_no_hook_is_left(arm: str) -> None:
    model = make(**ARMS[arm])
    with pytest.raises(RuntimeError, match="inside"), recorded(model):
        raise RuntimeError("inside")
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


@pytest.mark.parametrize("arm", ARMS)
@torch.no_grad()
def test_the_stream_is_the_sum_of_its_updates(arm: str) -> None:
    model, (tokens_BT, meta_mask_BT) = make(**ARMS[arm]), prompts()
    with recorded(model) as recording:
        logits_BTV = model(tokens_BT, meta_mask_BT)
    assert len(recording.layers) == 2
    assert torch.equal(model.logits(recording.hidden_BTD), logits_BTV)
    assert torch.equal(recording.layers[0].after_BTD, recording.layers[1].before_BTD)
    for layer in recording.layers:
        if model.config.norm == "pre":
            assert torch.equal(layer.before_BTD + layer[SELF].update_BTD, layer[SELF].after_BTD)
            assert torch.equal(layer["mlp"].before_BTD + layer["mlp"].update_BTD, layer.after_BTD)
            update = layer[META].update_BTD if META in layer.branches else 0
            assert torch.equal(layer[SELF].after_BTD + update, layer["mlp"].before_BTD)
        else:
            assert not torch.equal(layer.before_BTD + layer[SELF].update_BTD, layer[SELF].after_BTD)
            changed_BT = (layer[SELF].after_BTD != layer["mlp"].before_BTD).any(dim=-1)
            assert torch.equal(changed_BT, torch.ones_like(meta_mask_BT) if arm.endswith("matched") else meta_mask_BT)


@pytest.mark.parametrize("arm", ARMS)
@torch.no_grad()
def test_recorded_attention_gives_the_recorded_updates(arm: str) -> None:
    """float32 sums in another order: 1e-5."""
    model, (tokens_BT, meta_mask_BT) = make(**ARMS[arm]), prompts()
    with recorded(model) as recording:
        model(tokens_BT, meta_mask_BT)
    for number, layer in enumerate(recording.layers):
        block = model.blocks[number % model.config.n_blocks]
        out = block.attention.projections.out
        torch.testing.assert_close(
            updated(layer[SELF].probs_BNTT, layer[SELF].values_BTD, out), layer[SELF].update_BTD, rtol=1e-4, atol=1e-5
        )
        if META not in [branch.name for branch in block.branches]:
            assert META not in layer.branches
            continue
        out = out if "shared" in model.config.mechanism_options else block.meta_attention.projections.out
        seen = layer[META].probs_BNTT.sum(dim=(1, 3), keepdim=False) > 0
        assert torch.equal(seen, meta_mask_BT if model.config.mechanism == "meta" and not dense(model) else seen)
        expected = updated(layer[META].probs_BNTT, layer[META].values_BTD, out) * seen.unsqueeze(-1)
        torch.testing.assert_close(expected, layer[META].update_BTD, rtol=1e-4, atol=1e-5)


def dense(model: MetaTransformer) -> bool:
    return "fill" in model.config.mechanism_options


def updated(probs_BNTT: Tensor, values_BTD: Tensor, out: torch.nn.Linear) -> Tensor:
    values_BNTH = values_BTD.unflatten(-1, (probs_BNTT.shape[1], -1)).transpose(1, 2)
    return out((probs_BNTT @ values_BNTH).transpose(1, 2).flatten(-2))


@torch.no_grad()
def test_meta_attention_looks_at_meta_tokens_only() -> None:
    model, (tokens_BT, meta_mask_BT) = make(), prompts()
    with recorded(model) as recording:
        model(tokens_BT, meta_mask_BT)
    pairs_BTT = (meta_mask_BT.unsqueeze(-1) & meta_mask_BT.unsqueeze(-2)).tril()
    for layer in recording.layers:
        assert torch.equal(layer[META].scores_BNTT.isfinite(), pairs_BTT.unsqueeze(1).expand(-1, 2, -1, -1))


@torch.no_grad()
def test_scores_can_be_left_out_and_a_second_pass_takes_the_place_of_the_first() -> None:
    model, (tokens_BT, meta_mask_BT) = make(), prompts()
    with recorded(model, attention=False) as recording:
        model(tokens_BT, meta_mask_BT)
        model(tokens_BT[:1], meta_mask_BT[:1])
    assert len(recording.layers) == 2
    assert recording.layers[0].before_BTD.shape[0] == 1
    assert recording.layers[0][SELF].scores_BNTT is None


@torch.no_grad()
def test_weights_of_a_blind_row_are_zero() -> None:
    scores = torch.tensor([[0.0, 1.0], [-torch.inf, -torch.inf]])
    assert reference.weights(scores)[1].eq(0).all()
