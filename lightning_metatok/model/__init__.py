"""The transformer with meta-attention, in plain PyTorch."""

from lightning_metatok.model.build import build
from lightning_metatok.model.cache import KVCache
from lightning_metatok.model.config import TransformerConfig
from lightning_metatok.model.generate import generate
from lightning_metatok.model.transformer import MetaTransformer

__all__ = ["KVCache", "MetaTransformer", "TransformerConfig", "build", "generate"]
