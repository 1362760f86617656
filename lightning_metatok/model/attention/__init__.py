"""Attention on two axes: WHAT may be seen (`patterns`) and HOW it is computed (`backends`); `plan` joins them."""

from lightning_metatok.model.attention.backends import BACKENDS, supports, try_backends
from lightning_metatok.model.attention.meta import MetaBlocks, meta_attention

__all__ = ["BACKENDS", "MetaBlocks", "meta_attention", "supports", "try_backends"]
