"""Rotary positions (Su et al. 2021, arXiv 2104.09864): q and k are turned by angles that grow with the position.

    angle(t, p) = t * base^(-2p / R)           pair p of the R = fraction * H dimensions that are turned
    q_t . k_s then depends on t - s only.

pairing   half: pair p is (x_p, x_{p + R/2}), as in Llama and GPT-NeoX; interleaved: (x_2p, x_2p+1), as in GPT-J
fraction  of a head that is turned, its first dimensions (GPT-NeoX 0.25, GPT-J 64 of 256); the rest has no position
base      10000
scaling   how a trained model reads more than it was trained on (`extension`), with factor, original_max_positions and
          YaRN's own; these and the base may change after training, pairing and fraction may not

Where keep is False the angle is 0, and q and k stay as they are. That is position 0, not no position: to a token at t
it seems to stand t away, so part of what dropping costs in a long context is a wrong distance. Nothing is learned.
Costs O(B T R) for the angles, once a forward pass, and O(B N T R) a layer to turn q and k; scaling=dynamic is dearer,
see there. Angles are float32 whatever the model's dtype: in bfloat16 neighbouring positions beyond 256 would coincide.
No table is kept, so positions may be as large and as irregular as the caller likes.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from torch import Tensor

from lightning_metatok.model.positions import extension
from lightning_metatok.model.positions.base import PositionEncoding, Rows, Sizes
from lightning_metatok.model.positions.options import Rule, above, at_least, refuse
from lightning_metatok.model.positions.pairs import Pairing, identity_where_dropped, turn

SHARE = Rule("a number above 0, at most 1", lambda value: 0 < value <= 1)


class RotaryPositions(PositionEncoding):
    """Rotation of q and k; with scaling=dynamic, of the scores."""

    equation = "pairs turned by i w_l"
    claims = "no, but for context extension"
    rotates = True
    needs_even_head_dim = True
    free_after_training: ClassVar[frozenset[str]] = frozenset(
        {"base", "scaling", "factor", "original_max_positions", "beta_fast", "beta_slow", "attention_factor"}
    )

    def __init__(
        self,
        sizes: Sizes,
        *,
        pairing: Pairing = "half",
        fraction: Annotated[float, SHARE] = 1.0,
        base: Annotated[float, above(1)] = 10000.0,
        scaling: extension.Scaling = "none",
        factor: Annotated[float, at_least(1)] = 1.0,
        original_max_positions: Annotated[int | None, at_least(1)] = None,
        beta_fast: Annotated[float, above(0)] = 32.0,
        beta_slow: Annotated[float, above(0)] = 1.0,
        attention_factor: Annotated[float | None, above(0)] = None,
    ) -> None:
        super().__init__()
        assert sizes.head_dim % 2 == 0, f"rotary positions turn pairs: head_dim={sizes.head_dim} is odd"
        self.rotary_dim = int(fraction * sizes.head_dim) // 2 * 2
        if self.rotary_dim == 0:
            refuse("fraction", fraction, f"a share that leaves at least a pair of the {sizes.head_dim} dimensions")
        self.pairing = pairing
        self.frequencies = extension.Frequencies(
            self.rotary_dim, base, scaling, factor, original_max_positions, beta_fast, beta_slow, attention_factor
        )
        self.transforms_scores = scaling == "dynamic"

    @classmethod
    def transforms(cls, options: Mapping[str, Any]) -> bool:
        return options.get("scaling") == "dynamic"

    def prepare(self, position_ids_BT: Tensor, keep_BT: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Return cos and sin, [B, 1, T, R / 2] each, float32; None where the scores are turned instead."""
        if self.transforms_scores:
            return None
        angles_B1Th = position_ids_BT[:, None, :, None].float() * self.frequencies.fixed(position_ids_BT.device)
        cos, sin = (f * self.frequencies.attention_factor for f in (angles_B1Th.cos(), angles_B1Th.sin()))
        return identity_where_dropped(cos, sin, keep_BT)

    def apply_to(self, q_BNTH: Tensor, k_BNTH: Tensor, prepared: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        if prepared is None:
            return q_BNTH, k_BNTH
        cos, sin = prepared
        return turn(q_BNTH, cos, sin, self.pairing), turn(k_BNTH, cos, sin, self.pairing)

    def score(
        self,
        scores_BNQK: Tensor,
        position_ids_BT: Tensor,
        keep_BT: Tensor | None,
        *,
        layer: int = 0,
        rows: Rows | None = None,
    ) -> Tensor:
        if not self.transforms_scores:
            return scores_BNQK
        assert rows is not None, "dynamic scaling turns q and k anew for every row"
        return extension.dynamic_scores(self.frequencies, self.pairing, position_ids_BT, keep_BT, rows)
