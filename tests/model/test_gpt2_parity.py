"""With meta features off the model is GPT-2: Hugging Face weights give the same logits and gradients."""

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from lightning_metatok.model import MetaTransformer, TransformerConfig

PARTS = {
    "ln_1": "norm_attention",
    "attn.c_attn": "attention.projections.qkv",
    "attn.c_proj": "attention.projections.out",
    "ln_2": "norm_mlp",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}


def from_hugging_face(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors under our names; their linear layers are stored transposed."""
    ours = {}
    for name, tensor in named.items():
        if name == "lm_head.weight":
            continue
        name = name.removeprefix("transformer.")
        new = {"wte": "embedding", "wpe": "positions.table", "ln_f": "norm"}.get(name.rsplit(".", 1)[0])
        if new is None:
            _, layer, rest = name.split(".", 2)
            part, kind = rest.rsplit(".", 1)
            new = f"blocks.{layer}.{PARTS[part]}"
            if kind == "weight" and not part.startswith("ln"):
                tensor = tensor.T
        ours[f"{new}.{name.rsplit('.', 1)[1]}"] = tensor
    return ours


@pytest.mark.parametrize("length", [1, 17])
def test_logits_and_gradients_equal_hugging_face_gpt2(length: int) -> None:
    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=61,
            n_positions=32,
            n_embd=24,
            n_layer=3,
            n_head=4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    config = TransformerConfig(
        n_layers=3,
        n_heads=4,
        d_model=24,
        vocab_size=61,
        max_positions=32,
        position="learned",
        mechanism="none",
        bias=True,
        activation="gelu_tanh",
    )
    ours = MetaTransformer(config)
    ours.load_state_dict(from_hugging_face(theirs.state_dict()))
    tokens_BT = torch.randint(61, (2, length))
    their_logits, our_logits = theirs(tokens_BT).logits, ours(tokens_BT)
    # The same float32 operations, grouped otherwise.
    torch.testing.assert_close(our_logits, their_logits, atol=2e-5, rtol=1e-5)

    weights = torch.randn_like(our_logits)
    (their_logits * weights).sum().backward()
    (our_logits * weights).sum().backward()
    expected = from_hugging_face({n: p.grad for n, p in theirs.named_parameters() if p.grad is not None})
    gradients = {n: p.grad for n, p in ours.named_parameters()}
    assert gradients.keys() == expected.keys()
    torch.testing.assert_close(gradients, expected, atol=2e-4, rtol=1e-4)
