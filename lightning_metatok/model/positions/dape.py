"""DAPE (Zheng et al., NeurIPS 2024, arXiv 2405.14722): a network over the heads adapts a static bias to the scores.

    score'(i, j) = S + B + f([S; B])        S = q_i . k_j / sqrt(H) and B = static bias, N heads each; f: 2N -> 32 -> N

B is that of ALiBi, KERPLE (log) or FIRE, as `over` says, with their own defaults; FIRE's network has `fire_activation`,
relu as in FIRE's paper, where the authors of DAPE have leaky_relu. f is one network a layer, LeakyReLU between; it
reads scores that are not masked, and what it gives is masked afterwards. `kernel` 3 is DAPE V2 (arXiv 2410.04798):
both layers are 1 x 3 convolutions along the keys, and read 0 at keys that the query may not see.

Two places where the authors' code is not followed: V2 there masks scores before the first convolution alone, so that a
score depends on how many masked keys follow; and its second version declares twice the channels that it is given.

Learned: yes. Defaults: over kerple, width 32, kernel 1, fire_activation relu.
keep=False: neither B nor f is added for a pair with a dropped position: its score is left as it is. Under V2 the scores
of its kept neighbours still read it, with B = 0.
Cost: 3 N `width` kernel multiply-adds a score and `width` activations, several times those of attention itself.
(3 N kernel + 1) width + N parameters a layer, beside those of B.
"""

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from lightning_metatok.model.positions.alibi import AlibiPositions
from lightning_metatok.model.positions.base import PositionEncoding, Rows, Sizes
from lightning_metatok.model.positions.fire import FirePositions
from lightning_metatok.model.positions.kerple import KerpleLogPositions
from lightning_metatok.model.positions.options import Rule, at_least, refuse
from lightning_metatok.model.positions.perceptron import ScorePerceptron
from lightning_metatok.model.positions.score_bias import ScoreBias, kept_pairs, visible

STATIC: dict[str, type[ScoreBias]] = {"alibi": AlibiPositions, "kerple": KerpleLogPositions, "fire": FirePositions}
ODD = Rule("an odd number above 0", lambda value: value > 0 and value % 2 == 1)


class DapePositions(PositionEncoding):
    """A static bias and what a network over the heads adds to it."""

    equation = "B + f([S; B]), B of ALiBi, KERPLE or FIRE"
    learned = "f a layer, and B's"
    claims = "yes, improves"
    transforms_scores = True

    def __init__(
        self,
        sizes: Sizes,
        *,
        over: Literal["alibi", "kerple", "fire"] = "kerple",
        width: Annotated[int, at_least(1)] = 32,
        kernel: Annotated[int, ODD] = 1,
        fire_activation: Literal["relu", "leaky_relu"] = "relu",
    ) -> None:
        super().__init__()
        if over != "fire" and fire_activation != "relu":
            refuse("fire_activation", fire_activation, f"over=fire beside it, not over={over}")
        static: type = STATIC[over]
        self.static: ScoreBias = static(sizes, activation=fire_activation) if over == "fire" else static(sizes)
        self.kernel = kernel
        self.needs_all_keys = kernel > 1  # its convolution reads the scores of neighbours
        n, leaky = sizes.n_heads, nn.functional.leaky_relu
        self.f = nn.ModuleList(ScorePerceptron(2 * n, width, n, leaky, kernel) for _ in range(sizes.n_layers))

    def score(
        self,
        scores_BNQK: Tensor,
        position_ids_BT: Tensor,
        keep_BT: Tensor | None,
        *,
        layer: int = 0,
        rows: Rows | None = None,
    ) -> Tensor:
        static = self.static.kept_bias(scores_BNQK, position_ids_BT, keep_BT, layer, rows).expand_as(scores_BNQK)
        both = torch.cat((scores_BNQK.to(static.dtype), static), dim=1)
        adapted = static + self.f[layer](both, visible(scores_BNQK, rows) if self.kernel > 1 else None)
        kept = kept_pairs(keep_BT, scores_BNQK, rows)
        return scores_BNQK + (adapted if kept is None else adapted.masked_fill(~kept, 0))
