"""FIRE (Li et al., ICLR 2024, arXiv 2310.04418): a small network reads the distance as a share of the query's position.

    bias_h(i, j) = f(psi(|i - j|) / psi(max(i, L)))_h        psi(x) = ln(1 + |c x|)

f: 1 -> `width` -> N, `activation` between: relu as in the paper, or leaky_relu. i is the query's position, so that the
share stays in [0, 1] at any length; below the threshold L it is the distance alone that counts.

Learned: yes: f, c and L of every layer, or of all layers together (`per_layer` false, FIRE-S in the paper). c starts
at 0.1, L at `threshold` (512; it is learned as a multiple of that), f as torch's linear layers do.
keep=False: the bias of a pair with a dropped position is 0, which f need not give anywhere.
Cost: `width` (N + 1) multiply-adds and `width` activations a score: the dearest of the biases. (N + 2) width + N + 2
parameters a layer.
"""

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from lightning_metatok.model.positions.base import Sizes
from lightning_metatok.model.positions.options import above, at_least
from lightning_metatok.model.positions.perceptron import ScorePerceptron
from lightning_metatok.model.positions.score_bias import ScoreBias, distance


class FirePositions(ScoreBias):
    """Learned function of the progressively interpolated distance."""

    equation = "f(psi(d) / psi(max(i, L)))_h"
    learned = "f, c, L a layer"
    claims = "yes"

    def __init__(
        self,
        sizes: Sizes,
        *,
        width: Annotated[int, at_least(1)] = 32,
        threshold: Annotated[float, above(0)] = 512.0,
        per_layer: bool = True,
        activation: Literal["relu", "leaky_relu"] = "relu",
    ) -> None:
        super().__init__()
        layers = range(sizes.n_layers if per_layer else 1)
        self.threshold = threshold
        self.f = nn.ModuleList(
            ScorePerceptron(1, width, sizes.n_heads, getattr(nn.functional, activation)) for _ in layers
        )
        self.c = nn.ParameterList(torch.tensor([0.1]) for _ in layers)
        self.multiple = nn.ParameterList(torch.tensor([1.0]) for _ in layers)

    def bias(self, query_BQ1: Tensor, key_B1K: Tensor, layer: int) -> Tensor:
        layer %= len(self.f)
        dtype = query_BQ1.dtype
        c, least = self.c[layer].to(dtype), (self.multiple[layer].to(dtype) * self.threshold).abs()
        share = _psi(c, distance(query_BQ1, key_B1K)) / (_psi(c, query_BQ1.maximum(least)).unsqueeze(1) + 1e-6)
        bias_BNQK: Tensor = self.f[layer](share)
        return bias_BNQK


def _psi(c: Tensor, x: Tensor) -> Tensor:
    return torch.log1p((c * x).abs())
