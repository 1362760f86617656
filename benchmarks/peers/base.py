"""What a peer gives: see `peers.nanogpt.build`."""

from collections.abc import Callable

from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
Greedy = Callable[[Tensor, int], Tensor]
