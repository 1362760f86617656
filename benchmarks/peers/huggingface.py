"""GPT-2 of Hugging Face transformers, with scaled_dot_product_attention."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.peers.base import Greedy, Loss


def build(shape: Mapping[str, int]) -> tuple[nn.Module, Loss, Greedy]:
    """As `nanogpt.build`."""
    config = GPT2Config(
        n_layer=shape["n_layers"], n_head=shape["n_heads"], n_embd=shape["d_model"], vocab_size=shape["vocab_size"],
        n_positions=shape["max_positions"], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, attn_implementation="sdpa",
        bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        logits = model(tokens, use_cache=False).logits
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def greedy(tokens: Tensor, n: int) -> Tensor:
        seen = torch.ones_like(tokens)
        return model.generate(tokens, attention_mask=seen, max_new_tokens=n, min_new_tokens=n, do_sample=False)

    return model, loss, greedy
