"""The arms of this project as `peers` gives a peer: plain, pause (extra tokens, no mechanism) and meta."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers.base import Loss
from lightning_metatok.data import next_token_targets
from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.model import loss as losses

SHAPES: dict[str, dict[str, int]] = {
    "micro": {"n_layers": 2, "n_heads": 4, "d_model": 32, "vocab_size": 512, "max_positions": 64},
    "L4 d128": {"n_layers": 4, "n_heads": 4, "d_model": 128, "vocab_size": 1024, "max_positions": 256},
    "L4 d256": {"n_layers": 4, "n_heads": 4, "d_model": 256, "vocab_size": 2048, "max_positions": 256},
    "GPT-2 small": {"n_layers": 12, "n_heads": 12, "d_model": 768, "vocab_size": 50257, "max_positions": 256},
}
BATCH = {"micro": 4, "L4 d128": 16, "L4 d256": 16, "GPT-2 small": 1}
FRACTION = 0.1


def model_of(shape: Mapping[str, int], **more: Any) -> MetaTransformer:
    """A model of this project."""
    return MetaTransformer(TransformerConfig(**shape, **more))  # type: ignore[arg-type]


def text(shape: Mapping[str, int], batch: int) -> tuple[Tensor, Tensor]:
    """Tokens, and a mask with `FRACTION` of meta-tokens in each row."""
    size = (batch, shape["max_positions"])
    return torch.randint(shape["vocab_size"], size), torch.rand(size).argsort(dim=1) < int(FRACTION * size[1])


def targets_of(tokens_BT: Tensor, meta_mask_BT: Tensor | None) -> Tensor:
    """What an arm is scored on."""
    return next_token_targets(
        tokens_BT, torch.zeros_like(tokens_BT, dtype=torch.bool) if meta_mask_BT is None else meta_mask_BT
    )


def loss_of(model: MetaTransformer, meta_mask_BT: Tensor | None) -> Loss:
    """The mean loss as training computes it (`lit.targets`), of (tokens, targets)."""

    def loss(tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        targets = targets_BT.flatten()
        (at_K,) = torch.nonzero(targets >= 0, as_tuple=True)
        hidden_BTD = model(tokens_BT, meta_mask_BT, return_hidden=True)
        hidden_KD = hidden_BTD.flatten(0, 1).index_select(0, at_K)
        return losses.summed(hidden_KD, model.head_weight, targets[at_K]).sum / len(at_K)

    return loss


def training_step(model: nn.Module, loss: Loss, tokens_BT: Tensor, targets_BT: Tensor) -> Any:
    """A function that makes one step: forward, backward, clipping at 1, fused AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        loss(tokens_BT, targets_BT).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
