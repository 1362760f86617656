"""Where numbers begin that are drawn: each tensor is a function of (seed, its name, its shape), and of nothing else.

Drawn one after the other, as PyTorch does, a tensor depends on all that were drawn before it, and two models that
differ in one module share nothing. Here they share, bit for bit, every tensor that both have: what a seed does to one
it does to the other. The device does not matter either.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Start:
    """Draws tensors; `under` names the module that they belong to."""

    seed: int
    prefix: str = ""

    @classmethod
    def anew(cls) -> "Start":
        """One whose seed is the next number of torch's generator, which `torch.manual_seed` sets."""
        return cls(int(torch.empty((), dtype=torch.int64, device="cpu").random_()))

    def under(self, module: str) -> "Start":
        """The same for the tensors of a module with that name."""
        return Start(self.seed, f"{self.prefix}{module}." if module else self.prefix)

    @torch.no_grad()
    def __call__(self, name: str, tensor: Tensor, draw: Callable[..., Any], *given: Any, **options: Any) -> None:
        """Fill `tensor` as `draw` does, a function of `torch.nn.init` that gets `given` and `options`, too."""
        if tensor.is_meta:
            return
        shape = "x".join(map(str, tensor.shape))
        text = f"{self.seed} {self.prefix}{name} {shape}"
        bits = blake2b(text.encode(), digest_size=8).digest()
        generator = torch.Generator("cpu").manual_seed(int.from_bytes(bits, "little"))
        drawn = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        draw(drawn, *given, **options, generator=generator)
        tensor.copy_(drawn)
