"""Weights that are mixed out while a model trains: what is left at the end is a model without them.

    out = m own(x) + (1 - m) base(x)        m = 1 up to step `first`, then linear, 0 from step `last` on

KSA (arXiv 2604.24432) does so with the weights of its summary tokens (`summary_mix_qkv`).
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightning_metatok.model.attention.layers import Projections
from lightning_metatok.options import Rule

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig

STEPS = Rule("two steps, [first, last], first below last", lambda steps: len(steps) == 2 and 0 <= steps[0] < steps[1])
"""What an option `anneal` must be."""


class Share(nn.Module):
    """m, which a checkpoint carries."""

    m: Tensor

    def __init__(self, anneal: list[int]) -> None:
        """`anneal`: [first, last]."""
        super().__init__()
        self.anneal = anneal
        self.register_buffer("m", torch.ones(()))

    def forward(self, base: Tensor, own: Tensor) -> Tensor:
        """Return the mix of two tensors of one shape; exactly one of them at m = 0 and m = 1."""
        return torch.lerp(base, own, self.m.to(own.dtype))

    def at_step(self, step: int) -> None:
        """Set m to what it is in a step."""
        first, last = self.anneal
        self.m.fill_(min(1.0, max(0.0, (last - step) / (last - first))))


class AnnealedProjections(Projections):
    """The weights of an attention, mixed out towards those of another one."""

    def __init__(self, config: "TransformerConfig", base: Projections, anneal: list[int]) -> None:
        super().__init__(config)
        self._base = (base,)  # in a tuple, where PyTorch does not take it for a part of this module
        self.share = Share(anneal)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.heads(self.share(self._base[0].qkv(x), self.qkv(x)))

    def sink(self) -> Tensor | None:
        base_N, own_N = self._base[0].sink(), self.sink_N
        return None if base_N is None or own_N is None else self.share(base_N, own_N)

    def gates(self, x: Tensor) -> Tensor | None:
        base, own = self._base[0].gates(x), super().gates(x)
        return None if base is None or own is None else self.share(base, own)

    def finish(self, x: Tensor) -> Tensor:
        return self.share(self._base[0].out(x), self.out(x))
