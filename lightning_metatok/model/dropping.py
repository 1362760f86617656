"""Since when positions are dropped: a model learns with them, and is recalibrated without (DroPE, arXiv 2512.12167).

steps   0 1 2 3 ... | from ...        kept, then dropped as `config.drop_positions` and `drop_at` say
"""

from typing import Any

import torch
from torch import Tensor, nn


class Dropping(nn.Module):
    """Whether positions are dropped now, which a checkpoint carries."""

    on: Tensor

    def __init__(self, from_step: int) -> None:
        super().__init__()
        self.from_step = from_step
        self.now = False
        """The same for the host, which must not ask the device at every step."""
        self.register_buffer("on", torch.tensor(False))
        self.register_load_state_dict_post_hook(_taken_over)

    def at_step(self, step: int) -> None:
        """Set it to what it is in a step."""
        if self.now != (step >= self.from_step):
            self.now = step >= self.from_step
            self.on.fill_(self.now)


def _taken_over(module: Any, _: Any) -> None:
    module.now = bool(module.on)
