"""Let a mechanism that is added to a trained model start as if it were not there: what it adds is zero.

The last projection of each of its branches is set to zero, so that the stream passes unchanged, while gradients reach
that projection from the first step on. Weights beside those of a branch that was there before begin as these
(`start_unchanged` of their module). Source: the zero-initialised adapters of Houlsby et al. 2019, arXiv 1902.00751.
"""

from typing import cast

import torch
from torch import nn

from lightning_metatok.errors import UserError
from lightning_metatok.model.block import Block
from lightning_metatok.model.transformer import MetaTransformer

LAST = ("projections.out", "out", "down")
"""Names of a branch's last projection."""


@torch.no_grad()
def start_unchanged(model: MetaTransformer) -> None:
    """Set what the model's mechanism adds to zero.

    Raises:
        UserError: the mechanism changes more than what its branches add, or borrows its weights.
    """
    name = f"model.mechanism={model.config.mechanism!r}"
    if model.mechanism.transforms_scores or model.between is not None:
        raise UserError(f"{name} cannot start unchanged: it does more than to add to the residual stream")
    if model.config.norm == "post":
        raise UserError(f"{name} cannot start unchanged with model.norm='post', which norms what is added to")
    for module in model.modules():
        if (start := getattr(module, "start_unchanged", None)) is not None:
            start()
    for block in (cast(Block, block) for block in model.blocks):
        for branch in (branch for branch in block.branches if branch.added):
            modules = dict(getattr(block, branch.module).named_modules())
            last = next((modules[last] for last in LAST if last in modules), None)
            if not isinstance(last, nn.Linear):
                raise UserError(
                    f"{name} cannot start unchanged with these options: {branch.name} has no projection of its own"
                )
            for parameter in last.parameters():
                parameter.zero_()
