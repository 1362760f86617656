"""The base: a causal language model of transformers, its parts found by what they are, and what of it is trained.

    input embedding -> decoder (blocks in a list, then a norm) -> hidden states -> head without bias -> logits

That its logits are that and no more is checked when it is loaded, on a few tokens.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_metatok import hub
from lightning_metatok.errors import UserError
from lightning_metatok.model.config import TransformerConfig

KEY = "model.base"
NEEDS = ("inputs_embeds", "attention_mask", "position_ids", "past_key_values")
"""Arguments of a decoder that an adapter gives."""


@dataclass(frozen=True)
class Base:
    """A base and where its parts are."""

    model: nn.Module
    decoder: nn.Module
    blocks: nn.ModuleList
    embedding: nn.Embedding
    head: nn.Linear
    table: nn.Embedding | None
    """Of learned positions; None: it has no such table."""

    rotates: bool
    """Whether position 0 is no rotation, so that positions can be dropped by it."""

    @classmethod
    def load(cls, config: TransformerConfig) -> "Base":
        """Load the base of a model, freeze it, and add what of it is trained.

        Raises:
            UserError: it cannot be loaded, it is built otherwise than above, or its sizes are not those of `config`.
        """
        assert config.base is not None, "a model without a base needs none"
        theirs = hub.config_of(config.base, KEY)
        check_sizes(config, theirs)
        model = hub.model_of(config.base, KEY, theirs)
        base = cls.of(model, config.base)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = config.dropout
            if hasattr(module, "attention_dropout") and isinstance(module.attention_dropout, float | int):
                module.attention_dropout = config.dropout
        model.requires_grad_(config.base_weights == "all")
        if config.base_weights == "lora":
            _add_lora(model, config)
        model.train()
        return base

    @classmethod
    def of(cls, model: Any, name: str) -> "Base":
        """Find the parts of a model. Raises `UserError` where it is built otherwise."""
        kind, decoder = model.config.model_type, getattr(model, "base_model", None)
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        n = getattr(model.config, "num_hidden_layers", None)
        lists = [m for m in decoder.modules() if isinstance(m, nn.ModuleList) and len(m) == n] if decoder else []
        taken = inspect.signature(decoder.forward).parameters if decoder is not None else {}
        lacking = [key for key in NEEDS if key not in taken]
        for wrong, what in (
            (decoder is None or decoder is model or not lists, "no list of blocks behind an embedding"),
            (bool(lacking), f"a decoder that takes no {', '.join(lacking)}"),
            (not isinstance(embedding, nn.Embedding), "no table of embeddings"),
            (not isinstance(head, nn.Linear) or head.bias is not None, "no head without a bias"),
        ):
            if wrong:
                raise _unsupported(name, kind, what)
        assert decoder is not None, "refused above"
        table = getattr(decoder, "wpe", None)
        rotates = getattr(model.config, "rope_parameters", None) is not None
        base = cls(model, decoder, lists[0], embedding, head, table, rotates)
        if not base._is_projected():
            raise _unsupported(name, kind, "logits that are more than a projection of hidden states")
        return base

    @torch.no_grad()
    def _is_projected(self) -> bool:
        tokens_BT = torch.arange(4)[None]
        hidden = self.decoder(input_ids=tokens_BT).last_hidden_state
        expected: Tensor = self.model(input_ids=tokens_BT).logits
        return torch.allclose(self.head(hidden), expected, atol=1e-4, rtol=1e-4)

    @property
    def max_positions(self) -> int | None:
        """The longest sequence that it can read; None: any."""
        return None if self.table is None else self.table.num_embeddings


def sizes(theirs: Any) -> dict[str, int]:
    """Return the fields of `TransformerConfig` that a base says: n_layers, n_heads, d_model."""
    names = {"n_layers": "num_hidden_layers", "n_heads": "num_attention_heads", "d_model": "hidden_size"}
    return {ours: int(getattr(theirs, name)) for ours, name in names.items() if hasattr(theirs, name)}


def check_sizes(config: TransformerConfig, theirs: Any) -> None:
    """Raise `UserError` where a size is not the base's."""
    for key, value in sizes(theirs).items():
        if getattr(config, key) != value:
            raise UserError(f"model.{key}={getattr(config, key)}: expected {value}, which is that of {KEY}")


def _unsupported(name: str, kind: str, what: str) -> UserError:
    return UserError(f"{KEY}={name}: architecture {kind!r} has {what}; {hub.SUPPORTED}")


def _add_lora(model: Any, config: TransformerConfig) -> None:
    try:
        import peft
    except ImportError as error:
        raise UserError("model.base_weights='lora': needs peft: pip install 'lightning-metatok[lora]'") from error
    rank = config.lora_rank
    adapter = peft.LoraConfig(
        target_modules="all-linear",
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=config.dropout,
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in model.modules()),  # GPT-2's
    )
    peft.inject_adapter_in_model(adapter, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
