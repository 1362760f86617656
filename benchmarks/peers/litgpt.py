"""GPT of litgpt in the shape of GPT-2: rotary positions, no biases, MLP with GELU."""

from collections.abc import Mapping

import torch
from litgpt.config import Config
from litgpt.model import GPT
from torch import Tensor, nn

from benchmarks.peers.base import Greedy, Loss


def build(shape: Mapping[str, int]) -> tuple[nn.Module, Loss, Greedy]:
    """As `nanogpt.build`."""
    config = Config(
        n_layer=shape["n_layers"], n_head=shape["n_heads"], n_embd=shape["d_model"], vocab_size=shape["vocab_size"],
        padded_vocab_size=shape["vocab_size"], block_size=shape["max_positions"], bias=False, parallel_residual=False,
        rotary_percentage=1.0, mlp_class_name="GptNeoxMLP", norm_class_name="LayerNorm",
    )  # fmt: skip
    model = GPT(config)
    model.lm_head.weight = model.transformer.wte.weight

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def greedy(tokens: Tensor, n: int) -> Tensor:
        model.set_kv_cache(batch_size=len(tokens), max_seq_length=tokens.shape[1] + n)
        places, whole = torch.arange(tokens.shape[1]), tokens
        for _ in range(n):
            logits = model(whole[:, -len(places) :], places)
            whole = torch.cat((whole, logits[:, -1].argmax(dim=-1, keepdim=True)), dim=1)
            places = torch.tensor([whole.shape[1] - 1])
        model.clear_kv_cache()
        return whole

    return model, loss, greedy
