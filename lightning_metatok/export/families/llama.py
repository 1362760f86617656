"""Llama and its kin: rotary positions, RMS norm, swiglu, shared heads of keys. Qwen2 has biases at q, k and v alone.

Their q, k and v are three matrices, ours is one; so are the gate and the input of their MLP.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from lightning_metatok.export.families import rotary
from lightning_metatok.export.families.base import Family, Weights, common, moved, refuse_unless
from lightning_metatok.model import TransformerConfig

NAMES = {
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "blocks.{i}.norm_attention": "model.layers.{i}.input_layernorm",
    "blocks.{i}.attention.projections.out": "model.layers.{i}.self_attn.o_proj",
    "blocks.{i}.norm_mlp": "model.layers.{i}.post_attention_layernorm",
    "blocks.{i}.mlp.down": "model.layers.{i}.mlp.down_proj",
}
JOINED = {
    "blocks.{i}.attention.projections.qkv": [f"model.layers.{{i}}.self_attn.{part}_proj" for part in "qkv"],
    "blocks.{i}.mlp.up": [f"model.layers.{{i}}.mlp.{part}_proj" for part in ("gate", "up")],
}


class Llama(Family):
    """Llama."""

    name = "llama"
    config_class, model_class = "LlamaConfig", "LlamaForCausalLM"
    knows = frozenset(
        {"position", "position_options", "activation", "tied_head", "norm_type", "norm_eps", "n_kv_heads", "qkv_bias"}
    )
    title: ClassVar[str] = "Llama"
    qkv_bias: ClassVar[bool] = False
    fixed: ClassVar[Mapping[str, Any]] = {"attention_bias": False, "mlp_bias": False}
    """Entries of its config.json that must be so for `import`."""

    def why_not(self, config: TransformerConfig) -> str | None:
        if (reason := rotary.why_not_plain(config, self.title)) is not None:
            return reason
        for key, usual in (("norm_type", "rms"), ("activation", "swiglu")):
            if (value := getattr(config, key)) != usual:
                return f"model.{key}={value!r}, where {self.title} has {usual!r}"
        if bool(config.bias if config.qkv_bias is None else config.qkv_bias) != self.qkv_bias:
            return f"model.qkv_bias={config.qkv_bias!r}"
        return common(config, self.knows)

    def their_config(self, config: TransformerConfig) -> dict[str, Any]:
        return {
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.max_positions,
            "hidden_size": config.d_model,
            "num_hidden_layers": config.n_layers,
            "num_attention_heads": config.n_heads,
            "num_key_value_heads": config.kv_heads,
            "intermediate_size": config.mlp_dim,
            "attention_dropout": config.dropout,
            "rms_norm_eps": config.norm_eps,
            "tie_word_embeddings": config.tied_head,
            "rope_parameters": rotary.rope_parameters(config),
        }

    def their_weights(self, weights: Weights, config: TransformerConfig) -> Weights:
        found = moved(weights, NAMES, config.n_layers, to_ours=False)
        sizes = [n * config.head_dim for n in (config.n_heads, config.kv_heads, config.kv_heads)]
        for ours, theirs in JOINED.items():
            for i in range(config.n_layers):
                for kind in ("weight", "bias"):
                    if (whole := weights.get(f"{ours.format(i=i)}.{kind}")) is not None:
                        parts = whole.split(sizes) if len(theirs) == 3 else whole.chunk(2)
                        named = zip(theirs, parts, strict=True)
                        found |= {f"{name.format(i=i)}.{kind}": part.contiguous() for name, part in named}
        if config.tied_head:
            found["lm_head.weight"] = found["model.embed_tokens.weight"]
        return found

    def our_options(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        n_heads, kv_heads = theirs["num_attention_heads"], theirs["num_key_value_heads"]
        head_dim = theirs.get("head_dim") or theirs["hidden_size"] // n_heads
        refuse_unless(theirs["hidden_act"] == "silu", self.name, "hidden_act", theirs["hidden_act"], "silu")
        right = head_dim * n_heads == theirs["hidden_size"]
        refuse_unless(right, self.name, "head_dim", head_dim, f"{theirs['hidden_size']} / {n_heads}")
        for key, value in self.fixed.items():
            refuse_unless(theirs.get(key) == value, self.name, key, theirs.get(key), str(value))
        return {
            "vocab_size": theirs["vocab_size"],
            "max_positions": theirs["max_position_embeddings"],
            "d_model": theirs["hidden_size"],
            "n_layers": theirs["num_hidden_layers"],
            "n_heads": n_heads,
            "n_kv_heads": None if kv_heads == n_heads else kv_heads,
            "d_ff": theirs["intermediate_size"],
            "position": "rotary",
            "position_options": rotary.position_options(theirs, self.name),
            "activation": "swiglu",
            "norm_type": "rms",
            "norm_eps": theirs["rms_norm_eps"],
            "qkv_bias": True if self.qkv_bias else None,
            "tied_head": theirs["tie_word_embeddings"],
        }

    def our_weights(self, theirs: Weights, config: TransformerConfig) -> Weights:
        found = moved(theirs, NAMES, config.n_layers, to_ours=True)
        for ours, names in JOINED.items():
            for i in range(config.n_layers):
                for kind in ("weight", "bias"):
                    parts = [theirs[name] for part in names if (name := f"{part.format(i=i)}.{kind}") in theirs]
                    if parts:
                        found[f"{ours.format(i=i)}.{kind}"] = torch.cat(parts)
        if config.tied_head:
            found.pop("head.weight", None)
        return found


class Qwen2(Llama):
    """Qwen2."""

    name = "qwen2"
    config_class, model_class = "Qwen2Config", "Qwen2ForCausalLM"
    title = "Qwen2"
    qkv_bias = True
    fixed: ClassVar[Mapping[str, Any]] = {"use_sliding_window": False}


class Mistral(Llama):
    """Mistral, without a sliding window; written as Llama, which it then is."""

    name = "mistral"
    config_class, model_class = "MistralConfig", "MistralForCausalLM"
    title = "Mistral"
    fixed: ClassVar[Mapping[str, Any]] = {"sliding_window": None}
