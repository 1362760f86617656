"""GPT-2: learned positions, layer norm, GELU. Their linear layers are stored transposed."""

from collections.abc import Mapping
from typing import Any

from lightning_metatok.export.families.base import Family, Weights, common, moved, refuse_unless, with_zero_biases
from lightning_metatok.model import TransformerConfig

NAMES = {
    "embedding": "transformer.wte",
    "positions.table": "transformer.wpe",
    "norm": "transformer.ln_f",
    "head": "lm_head",
    "blocks.{i}.norm_attention": "transformer.h.{i}.ln_1",
    "blocks.{i}.attention.projections.qkv": "transformer.h.{i}.attn.c_attn",
    "blocks.{i}.attention.projections.out": "transformer.h.{i}.attn.c_proj",
    "blocks.{i}.norm_mlp": "transformer.h.{i}.ln_2",
    "blocks.{i}.mlp.up": "transformer.h.{i}.mlp.c_fc",
    "blocks.{i}.mlp.down": "transformer.h.{i}.mlp.c_proj",
}
TRANSPOSED = frozenset({"qkv", "out", "up", "down"})
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
READ = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    **{a: a for a in ("gelu", "relu")},
}


class GPT2(Family):
    """GPT-2."""

    name = "gpt2"
    config_class, model_class = "GPT2Config", "GPT2LMHeadModel"
    knows = frozenset({"position", "position_options", "bias", "activation", "tied_head", "norm_eps"})

    def why_not(self, config: TransformerConfig) -> str | None:
        if config.position != "learned":
            return f"model.position={config.position!r}, where GPT-2 has 'learned'"
        if config.position_options.get("start", 0):
            return "positions that start inside their table"
        if config.activation not in ACTIVATIONS:
            return f"model.activation={config.activation!r}"
        return common(config, self.knows)

    def their_config(self, config: TransformerConfig) -> dict[str, Any]:
        return {
            "vocab_size": config.vocab_size,
            "n_positions": config.max_positions,
            "n_embd": config.d_model,
            "n_layer": config.n_layers,
            "n_head": config.n_heads,
            "n_inner": config.mlp_dim,
            "activation_function": ACTIVATIONS[config.activation],
            "layer_norm_epsilon": config.norm_eps,
            "tie_word_embeddings": config.tied_head,
            **{f"{kind}_pdrop": config.dropout for kind in ("resid", "embd", "attn")},
        }

    def their_weights(self, weights: Weights, config: TransformerConfig) -> Weights:
        found = moved(weights, NAMES, config.n_layers, to_ours=False, transposed=TRANSPOSED)
        if config.tied_head:
            found["lm_head.weight"] = found["transformer.wte.weight"]
        d = config.d_model
        modules = [("transformer.ln_f", d)]
        for i in range(config.n_layers):
            sizes = {"ln_1": d, "ln_2": d, "attn.c_attn": 3 * d, "attn.c_proj": d, "mlp.c_fc": config.mlp_dim}
            modules += [(f"transformer.h.{i}.{name}", n) for name, n in {**sizes, "mlp.c_proj": d}.items()]
        return with_zero_biases(found, modules)

    def our_options(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        activation = theirs["activation_function"]
        for key, right, expected in (
            ("activation_function", activation in READ, f"one of {', '.join(READ)}"),
            ("scale_attn_weights", theirs["scale_attn_weights"], "true"),
            ("scale_attn_by_inverse_layer_idx", not theirs["scale_attn_by_inverse_layer_idx"], "false"),
            ("add_cross_attention", not theirs["add_cross_attention"], "false"),
        ):
            refuse_unless(bool(right), self.name, key, theirs[key], expected)
        return {
            "vocab_size": theirs["vocab_size"],
            "max_positions": theirs["n_positions"],
            "d_model": theirs["n_embd"],
            "n_layers": theirs["n_layer"],
            "n_heads": theirs["n_head"],
            "d_ff": theirs["n_inner"] or 4 * theirs["n_embd"],
            "position": "learned",
            "bias": True,
            "activation": READ[activation],
            "norm_eps": theirs["layer_norm_epsilon"],
            "tied_head": theirs["tie_word_embeddings"],
        }

    def our_weights(self, theirs: Weights, config: TransformerConfig) -> Weights:
        found = moved(theirs, NAMES, config.n_layers, to_ours=True, transposed=TRANSPOSED)
        if config.tied_head:
            found.pop("head.weight", None)
        return found
