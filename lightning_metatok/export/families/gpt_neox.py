"""GPT-NeoX, the shape of Pythia: rotary positions, layer norm, GELU. q, k and v of a head stand together in one matrix.

Its blocks may be one after the other (ours) or both branches of a block at once (`use_parallel_residual`).
"""

from typing import Any

from torch import Tensor

from lightning_metatok.export.families.base import Family, Weights, common, moved, with_zero_biases
from lightning_metatok.model import TransformerConfig

QKV, THEIR_QKV = "blocks.{i}.attention.projections.qkv", "gpt_neox.layers.{i}.attention.query_key_value"
NAMES = {
    "embedding": "gpt_neox.embed_in",
    "norm": "gpt_neox.final_layer_norm",
    "head": "lm_head",
    "blocks.{i}.norm_attention": "gpt_neox.layers.{i}.input_layernorm",
    QKV: THEIR_QKV,
    "blocks.{i}.attention.projections.out": "gpt_neox.layers.{i}.attention.dense",
    "blocks.{i}.norm_mlp": "gpt_neox.layers.{i}.post_attention_layernorm",
    "blocks.{i}.mlp.up": "gpt_neox.layers.{i}.mlp.dense_h_to_4h",
    "blocks.{i}.mlp.down": "gpt_neox.layers.{i}.mlp.dense_4h_to_h",
}
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}


class GPTNeoX(Family):
    """GPT-NeoX, without parallel branches."""

    name = "gpt_neox"
    config_class, model_class = "GPTNeoXConfig", "GPTNeoXForCausalLM"
    knows = frozenset({"position", "position_options", "bias", "activation", "tied_head"})

    def why_not(self, config: TransformerConfig) -> str | None:
        if config.position != "rotary":
            return f"model.position={config.position!r}, where GPT-NeoX has 'rotary'"
        if (reason := plain_rotary(config)) is not None:
            return reason
        if config.activation not in ACTIVATIONS:
            return f"model.activation={config.activation!r}"
        return common(config, self.knows)

    def their_config(self, config: TransformerConfig) -> dict[str, Any]:
        options = config.position_options
        return {
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.max_positions,
            "hidden_size": config.d_model,
            "num_hidden_layers": config.n_layers,
            "num_attention_heads": config.n_heads,
            "intermediate_size": config.mlp_dim,
            "hidden_act": ACTIVATIONS[config.activation],
            "hidden_dropout": config.dropout,
            "attention_dropout": config.dropout,
            "layer_norm_eps": 1e-5,
            "tie_word_embeddings": config.tied_head,
            "attention_bias": config.bias,
            "use_parallel_residual": False,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": options.get("base", 10000.0),
                "partial_rotary_factor": options.get("fraction", 1.0),
            },
        }

    def their_weights(self, weights: Weights, config: TransformerConfig) -> Weights:
        found = moved(weights, NAMES, config.n_layers, to_ours=False)
        for i in range(config.n_layers):
            for kind in ("weight", "bias"):
                if (name := f"{THEIR_QKV.format(i=i)}.{kind}") in found:
                    found[name] = by_head(found[name], config.n_heads)
        if config.tied_head:
            found["lm_head.weight"] = found["gpt_neox.embed_in.weight"]
        d = config.d_model
        modules = [("gpt_neox.final_layer_norm", d)]
        for i in range(config.n_layers):
            sizes = {"input_layernorm": d, "post_attention_layernorm": d, "mlp.dense_h_to_4h": config.mlp_dim}
            modules += [(f"gpt_neox.layers.{i}.{name}", n) for name, n in {**sizes, "mlp.dense_4h_to_h": d}.items()]
        return with_zero_biases(found, modules)


def plain_rotary(config: TransformerConfig) -> str | None:
    """Return why rotary positions are not those of every model of transformers, as a clause."""
    options = config.position_options
    if options.get("pairing", "half") != "half":
        return f"model.position_options.pairing={options['pairing']!r}"
    if options.get("scaling", "none") != "none":
        return f"model.position_options.scaling={options['scaling']!r}"
    if int(options.get("fraction", 1.0) * config.head_dim) % 2:
        return f"model.position_options.fraction={options['fraction']!r}, which leaves an odd dimension"
    return None


def by_head(x: Tensor, n_heads: int) -> Tensor:
    """Rows q, k, v of all heads [3 N H, ...] in the order of GPT-NeoX: q, k, v of one head after the other."""
    return x.unflatten(0, (3, n_heads, -1)).transpose(0, 1).flatten(0, 2).contiguous()


def by_kind(x: Tensor, n_heads: int) -> Tensor:
    """The way back of `by_head`."""
    return x.unflatten(0, (n_heads, 3, -1)).transpose(0, 1).flatten(0, 2).contiguous()
