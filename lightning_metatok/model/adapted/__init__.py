"""Any causal language model of Hugging Face with meta-tokens and a mechanism as an adapter (`model.base`)."""

from lightning_metatok.model.adapted.transformer import AdaptedTransformer

__all__ = ["AdaptedTransformer"]
