"""Small models and batches that the model's tests share."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import MetaToMeta, SameDocument
from lightning_metatok.model.cache import KVCache

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


@torch.no_grad()
def check_any_chunking(model: MetaTransformer, cuts: set[int]) -> None:
    """Hold a row that is read in pieces, with a cache, to the full pass."""
    (tokens_BT, extra_BT), cache, borders = batch(), KVCache(2), [0, *sorted(cuts), 21]
    pieces = [model(tokens_BT[:, a:b], extra_BT[:, a:b], cache=cache) for a, b in itertools.pairwise(borders)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens_BT, extra_BT), atol=1e-5, rtol=1e-5)


def check_nothing_leaks(model: MetaTransformer) -> None:
    """Hold what token 10 says to the tokens up to it: gradients by what enters for each."""
    embedded: list[Tensor] = []
    model.dropout.register_forward_hook(lambda _, __, out: embedded.append(out))
    out = model(*batch())
    (gradient,) = torch.autograd.grad(out[:, 10].square().sum(), embedded)
    assert not gradient[:, 11:].any()
    assert gradient[:, :11].any(dim=-1).all()


def check_every_output_depends_on_every_input(model: MetaTransformer) -> None:
    """By what stands between the blocks alone: their attention is silenced."""
    for block in model.blocks:
        block.attention.register_forward_hook(lambda _, __, out: torch.zeros_like(out))
    embedded: list[Tensor] = []
    model.dropout.register_forward_hook(lambda _, __, out: embedded.append(out))
    out = model(*batch())
    for t in (0, 20):
        (gradient,) = torch.autograd.grad(out[:, t].square().sum(), embedded, retain_graph=True)
        assert gradient.any(dim=-1).all()


def check_equal(found: Tensor, expected: Tensor, inputs: Sequence[Tensor]) -> None:
    """Hold two outputs to the same values and the same gradients by `inputs`."""
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(out.sin().sum(), inputs) for out in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def meta_to_meta(is_meta_T: Tensor) -> Tensor:
    """The rule's mask [T, T] of one sample."""
    return MetaToMeta().mask(Facts.of(len(is_meta_T), is_meta_T[None]))[0]


def same_document(document_ids: Tensor) -> Tensor:
    """The rule's mask [T, T] of one sample's ids [T], or [B, T, T] of [B, T]."""
    ids_BT = document_ids if document_ids.dim() == 2 else document_ids[None]
    mask_BTT = SameDocument().mask(Facts.of(ids_BT.shape[1], None, ids_BT))
    return mask_BTT if document_ids.dim() == 2 else mask_BTT[0]
