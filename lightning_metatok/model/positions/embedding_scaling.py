"""How large token embeddings are (Csordas, Irie, Schmidhuber, EMNLP 2021, arXiv 2108.12284).

                  tokens start as      tokens are scaled by
    noscale       normal(0, 1)         1
    opennmt       Xavier uniform       sqrt(D)
    downscaled    Kaiming normal       1

"The Devil is in the Detail" found length generalisation to hang on this choice. (There `downscaled` also divides
sinusoids that are added to the tokens by sqrt(D); relative encodings add none.) Kaiming's standard deviation is
sqrt(2 / D), torch's default and the authors' code. With a tied head, noscale makes the first logits as wide as sqrt(D):
`model.tied_head=false` is what the paper has.
"""

import math
from typing import Literal

from torch import Tensor, nn

from lightning_metatok.model.start import Start

Scaling = Literal["noscale", "opennmt", "downscaled"]
TOKENS = "embedding.weight"
"""What the model calls the token embeddings."""


def initialise(weight_VD: Tensor, scaling: Scaling | None, start: Start) -> None:
    """Draw token embeddings as `scaling` wants them; None leaves them as they are."""
    if scaling == "noscale":
        start(TOKENS, weight_VD, nn.init.normal_)
    elif scaling == "opennmt":
        start(TOKENS, weight_VD, nn.init.xavier_uniform_)
    elif scaling == "downscaled":
        start(TOKENS, weight_VD, nn.init.kaiming_normal_)


def token_scale(scaling: Scaling | None, d_model: int) -> float:
    """What token embeddings are multiplied by."""
    return math.sqrt(d_model) if scaling == "opennmt" else 1.0
