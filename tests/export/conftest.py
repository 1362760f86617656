"""Checkpoints of tiny models with weights that say something, written as `fit` writes them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from lightning_metatok.data import MetaTokenizer
from lightning_metatok.export.write import Trained
from lightning_metatok.lit.checkpoints.marks import Marks
from lightning_metatok.model import MetaTransformer, TransformerConfig
from tests.system.helpers import documents

TINY = {"n_layers": 2, "n_heads": 2, "d_model": 16, "max_positions": 48}
Make = Callable[..., Trained]


@pytest.fixture(scope="session")
def tokenizer() -> MetaTokenizer:
    """Of 300 ids."""
    return MetaTokenizer.train(documents(3), 300)


@pytest.fixture(scope="session")
def make(tokenizer: MetaTokenizer) -> Make:
    """A function that makes what an export reads, of a tiny model with these options."""

    def make(**options: Any) -> Trained:
        config = TransformerConfig(**{**TINY, "vocab_size": 304, **options})
        return Trained(drawn(MetaTransformer(config, seed=1)), tokenizer, Marks(0.1, "random"), 20, Path("x/y/z.ckpt"))

    return make


@torch.no_grad()
def drawn(model: Any) -> Any:
    """A model whose every weight is drawn, biases and norms too."""
    generator = torch.Generator().manual_seed(5)
    for weight in model.parameters():
        weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model.eval()


def prompts(meta_id: int) -> torch.Tensor:
    """Two prompts of 12 tokens with two or three meta-tokens."""
    tokens_BT = torch.randint(2, 300, (2, 12), generator=torch.Generator().manual_seed(3))
    tokens_BT[:, [3, 8]] = meta_id
    tokens_BT[1, 5] = meta_id
    return tokens_BT
