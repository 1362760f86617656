"""Sinusoidal absolute positions (Vaswani et al. 2017, arXiv 1706.03762, section 3.5), added to the token embedding.

    PE[t, 2i] = sin(t / base^(2i / D))        PE[t, 2i + 1] = cos(t / base^(2i / D))        base = 10000

PE has entries of size 1; how large token embeddings stand beside it matters more than it seems (Csordas et al. 2021,
arXiv 2108.12284). `scaling`:

    opennmt      x = sqrt(D) E + PE      E Xavier-uniform; as in the original transformer; the default
    noscale      x = E + PE              E normal(0, 1)
    downscaled   x = E + PE / sqrt(D)    E Kaiming-normal, std 1 / sqrt(D)
    plain        x = E + PE              E as in the rest of the model, normal(0, 0.02): PE drowns it at first

Where keep is False nothing is added. Nothing is learned; any position works. Costs O(B T D) once a forward pass.
"""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from lightning_metatok.model.positions.base import PositionEncoding, Sizes
from lightning_metatok.model.positions.embedding_scaling import TOKENS
from lightning_metatok.model.positions.options import above
from lightning_metatok.model.start import Start


class SinusoidalPositions(PositionEncoding):
    """Sines and cosines of the position; in float32 until they are added."""

    equation = "x + [sin(i w_l), cos(i w_l)], scaled as Csordas et al."
    embeds = True

    def __init__(
        self,
        sizes: Sizes,
        *,
        base: Annotated[float, above(1)] = 10000.0,
        scaling: Literal["opennmt", "noscale", "downscaled", "plain"] = "opennmt",
    ) -> None:
        super().__init__()
        self.d_model, self.base, self.scaling = sizes.d_model, base, scaling
        self.token_scale = math.sqrt(sizes.d_model) if scaling == "opennmt" else 1.0
        self.amplitude = 1 / math.sqrt(sizes.d_model) if scaling == "downscaled" else 1.0

    def initialise_tokens(self, weight_VD: Tensor, start: Start) -> None:
        if self.scaling == "opennmt":
            start(TOKENS, weight_VD, nn.init.xavier_uniform_)
        elif self.scaling == "noscale":
            start(TOKENS, weight_VD, nn.init.normal_)
        elif self.scaling == "downscaled":
            start(TOKENS, weight_VD, nn.init.normal_, std=1 / math.sqrt(self.d_model))

    def embed(self, position_ids_BT: Tensor, keep_BT: Tensor | None) -> Tensor:
        shares_d = torch.arange(0, self.d_model, 2, device=position_ids_BT.device).float() / self.d_model
        angles_BTd = position_ids_BT.unsqueeze(-1).float() * self.base**-shares_d
        waves_BTD = torch.stack((angles_BTd.sin(), angles_BTd.cos()), dim=-1).flatten(-2)[..., : self.d_model]
        waves_BTD = waves_BTD * self.amplitude
        return waves_BTD if keep_BT is None else waves_BTD * keep_BT.unsqueeze(-1)
