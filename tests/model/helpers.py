"""Small models and batches that the model's tests share."""

from typing import Any

import torch
from torch import Tensor

from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import MetaToMeta, SameDocument

VOCABULARY = 50


def tiny(seed: int = 0, **changes: Any) -> MetaTransformer:
    """A model of two layers with weights large enough that every branch matters."""
    shape = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": VOCABULARY, "max_positions": 64}
    torch.manual_seed(seed)
    model = MetaTransformer(TransformerConfig(**{**shape, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def batch(seed: int = 0, n: int = 3, length: int = 21, fraction: float = 0.3) -> tuple[Tensor, Tensor]:
    """Tokens, and a mask with a different number of meta-tokens in each sample."""
    generator = torch.Generator().manual_seed(seed)
    tokens_BT = torch.randint(VOCABULARY, (n, length), generator=generator)
    return tokens_BT, torch.rand(n, length, generator=generator) < fraction


def meta_to_meta(is_meta_T: Tensor) -> Tensor:
    """The rule's mask [T, T] of one sample."""
    return MetaToMeta().mask(Facts.of(len(is_meta_T), is_meta_T[None]))[0]


def same_document(document_ids: Tensor) -> Tensor:
    """The rule's mask [T, T] of one sample's ids [T], or [B, T, T] of [B, T]."""
    ids_BT = document_ids if document_ids.dim() == 2 else document_ids[None]
    mask_BTT = SameDocument().mask(Facts.of(ids_BT.shape[1], None, ids_BT))
    return mask_BTT if document_ids.dim() == 2 else mask_BTT[0]
