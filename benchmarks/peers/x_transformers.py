"""The decoder of x-transformers in the shape of GPT-2: rotary positions, its fused attention."""

from collections.abc import Mapping

from torch import Tensor, nn
from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

from benchmarks.peers.base import Greedy, Loss


def build(shape: Mapping[str, int]) -> tuple[nn.Module, Loss, Greedy]:
    """As `nanogpt.build`."""
    n_heads = shape["n_heads"]
    layers = Decoder(
        dim=shape["d_model"], depth=shape["n_layers"], heads=n_heads, attn_dim_head=shape["d_model"] // n_heads,
        rotary_pos_emb=True, attn_flash=True, ff_no_bias=True,
    )  # fmt: skip
    model = TransformerWrapper(
        num_tokens=shape["vocab_size"], max_seq_len=shape["max_positions"], attn_layers=layers, use_abs_pos_emb=False,
        tie_embedding=True,
    )  # fmt: skip
    wrapped = AutoregressiveWrapper(model)

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())

    def greedy(tokens: Tensor, n: int) -> Tensor:
        return wrapped.generate(tokens, n, temperature=0.0, cache_kv=True)

    return model, loss, greedy
