"""GPT-NeoX, the shape of Pythia: rotary positions, layer norm, GELU. q, k and v of a head stand together in one matrix.

Both branches of a block read what entered it (`use_parallel_residual`, our `parallel`), or one follows the other.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_metatok.export.families import rotary
from lightning_metatok.export.families.base import Family, Weights, common, moved, refuse_unless, with_zero_biases
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
READ = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {"gelu_fast": "gelu_tanh"}


class GPTNeoX(Family):
    """GPT-NeoX."""

    name = "gpt_neox"
    config_class, model_class = "GPTNeoXConfig", "GPTNeoXForCausalLM"
    knows = frozenset({"position", "position_options", "bias", "activation", "tied_head", "norm_eps", "parallel"})

    def why_not(self, config: TransformerConfig) -> str | None:
        if (reason := rotary.why_not_plain(config, "GPT-NeoX", partial=True)) is not None:
            return reason
        if config.activation not in ACTIVATIONS:
            return f"model.activation={config.activation!r}"
        return common(config, self.knows)

    def their_config(self, config: TransformerConfig) -> dict[str, Any]:
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
            "layer_norm_eps": config.norm_eps,
            "tie_word_embeddings": config.tied_head,
            "attention_bias": config.bias,
            "use_parallel_residual": config.parallel,
            "rope_parameters": rotary.rope_parameters(config),
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

    def our_options(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        activation = theirs["hidden_act"]
        refuse_unless(activation in READ, self.name, "hidden_act", activation, f"one of {', '.join(READ)}")
        return {
            "vocab_size": theirs["vocab_size"],
            "max_positions": theirs["max_position_embeddings"],
            "d_model": theirs["hidden_size"],
            "n_layers": theirs["num_hidden_layers"],
            "n_heads": theirs["num_attention_heads"],
            "d_ff": theirs["intermediate_size"],
            "position": "rotary",
            "position_options": rotary.position_options(theirs, self.name),
            "bias": True,  # of attention, too: where theirs has none, ours are zeros
            "activation": READ[activation],
            "norm_eps": theirs["layer_norm_eps"],
            "parallel": theirs["use_parallel_residual"],
            "tied_head": theirs["tie_word_embeddings"],
        }

    def our_weights(self, theirs: Weights, config: TransformerConfig) -> Weights:
        found = moved(theirs, NAMES, config.n_layers, to_ours=True)
        for i in range(config.n_layers):
            for kind in ("weight", "bias"):
                name = f"{QKV.format(i=i)}.{kind}"
                if name in found:
                    found[name] = by_kind(found[name], config.n_heads)
        if config.tied_head:
            found.pop("head.weight", None)
        return found


def by_head(x: Tensor, n_heads: int) -> Tensor:
    """Rows q, k, v of all heads [3 N H, ...] in the order of GPT-NeoX: q, k, v of one head after the other."""
    return x.unflatten(0, (3, n_heads, -1)).transpose(0, 1).flatten(0, 2).contiguous()


def by_kind(x: Tensor, n_heads: int) -> Tensor:
    """The way back of `by_head`."""
    return x.unflatten(0, (n_heads, 3, -1)).transpose(0, 1).flatten(0, 2).contiguous()
