"""KERPLE (Chi, Fan, Ramadge, Rudnicky, NeurIPS 2022, arXiv 2205.09921): learned kernels of the distance d = |i - j|.

    kerple_log      bias_h(i, j) = -p_h ln(1 + a_h d)          a, p >= 0.01
    kerple_power    bias_h(i, j) = -a_h d^p_h                  a >= 0.01, 0.01 <= p <= 2

Both are shift-invariant conditionally positive definite kernels, up to a constant that softmax does not see.

Learned: yes, a_h and p_h of every layer, from p ~ U(0, 2) and a ~ U(0, 1), clamped as above when they are used. As in
the authors' code, whose clamp moves the parameter itself, one outside has the gradient that it would have at the bound
(`bounded`), so that it can come back. Options: none. They are vectors, so the optimiser does not decay them (the paper
decays nothing).
keep=False: the bias of a pair with a dropped position is 0, as at distance 0.
Cost: a logarithm or a power a score; 2 N parameters a layer.
"""

import torch
from torch import Tensor, nn

from lightning_metatok.model.positions.base import Sizes
from lightning_metatok.model.positions.bounded import bounded
from lightning_metatok.model.positions.score_bias import ScoreBias, distance
from lightning_metatok.model.start import Start

LEAST = 0.01
MOST_POWER = 2.0


class _Kerple(ScoreBias):
    most_p: float | None = None
    """No exponent is larger."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        layers = range(sizes.n_layers)
        self.p = nn.ParameterList(torch.empty(sizes.n_heads) for _ in layers)
        self.a = nn.ParameterList(torch.empty(sizes.n_heads) for _ in layers)
        self.draw(Start.anew())

    def draw(self, start: Start) -> None:
        for name, most in (("p", 2.0), ("a", 1.0)):
            for layer, of_heads in enumerate(getattr(self, name)):
                start(f"{name}.{layer}", of_heads, nn.init.uniform_, 0.0, most)

    def bias(self, query_BQ1: Tensor, key_B1K: Tensor, layer: int) -> Tensor:
        distance_B1QK = distance(query_BQ1, key_B1K)
        a, p = bounded(self.a[layer], LEAST), bounded(self.p[layer], LEAST, self.most_p)
        return -self.kernel(distance_B1QK, *(x[:, None, None].to(distance_B1QK.dtype) for x in (a, p)))

    def kernel(self, distance_B1QK: Tensor, a_N11: Tensor, p_N11: Tensor) -> Tensor:
        """What is subtracted from the scores, [B, N, Q, K]."""
        raise NotImplementedError


class KerpleLogPositions(_Kerple):
    """Logarithmic kernel."""

    equation = "-p_h ln(1 + a_h d)"
    learned = "2 N a layer"
    claims = "yes"

    def kernel(self, distance_B1QK: Tensor, a_N11: Tensor, p_N11: Tensor) -> Tensor:
        return p_N11 * torch.log1p(a_N11 * distance_B1QK)


class KerplePowerPositions(_Kerple):
    """Power kernel."""

    equation = "-a_h d^p_h"
    learned = "2 N a layer"
    claims = "yes"
    most_p = MOST_POWER

    def kernel(self, distance_B1QK: Tensor, a_N11: Tensor, p_N11: Tensor) -> Tensor:
        # The gradient of 0^p in p is 0 times ln 0: distance 0 goes round the power.
        apart = distance_B1QK > 0
        return a_N11 * distance_B1QK.where(apart, 1).pow(p_N11).where(apart, 0)
