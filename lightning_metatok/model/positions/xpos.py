"""XPos (Sun et al. 2023, arXiv 2212.10554): rotary positions whose pairs fade with the distance.

    zeta_p = (2p / H + gamma) / (1 + gamma)                   gamma = 0.4
    q_t -> R(t theta) q_t * zeta_p^( t / scale_base)          scale_base = 512
    k_s -> R(s theta) k_s * zeta_p^(-s / scale_base)          so a score has zeta_p^((t - s) / scale_base): fast pairs
                                                              (small p) fade first

Pairs are interleaved as in the authors' code (`pairing`), theta_p = base^(-2p / H) with base 10000. The authors centre
the exponents in the sequence; that cancels in the scores, and here they count from position 0, so that keys in a cache
stay right when the sequence grows. Where keep is False q and k stay as they are: position 0 in angle and scale.

Nothing is learned, and the cost is that of rotary positions. k grows as 3.5^(s / 512): float32 and bfloat16 hold it up
to about 36,000 positions, float16 up to 4,500. gamma, scale_base and pairing are fixed by training, base too.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from lightning_metatok.model.positions.base import PositionEncoding, Sizes
from lightning_metatok.model.positions.options import above
from lightning_metatok.model.positions.pairs import Pairing, identity_where_dropped, turn


class XPosPositions(PositionEncoding):
    """Rotation and exponential scale of q and k."""

    equation = "rotary, times s_l^i for q and s_l^-i for k"
    claims = "somewhat"
    rotates = True
    needs_even_head_dim = True
    cannot: ClassVar[Mapping[str, str]] = {"ahead": "its scores grow with the distance of what stands behind"}

    def __init__(
        self,
        sizes: Sizes,
        *,
        pairing: Pairing = "interleaved",
        base: Annotated[float, above(1)] = 10000.0,
        gamma: Annotated[float, above(0)] = 0.4,
        scale_base: Annotated[float, above(0)] = 512.0,
    ) -> None:
        super().__init__()
        self.head_dim, self.pairing, self.base = sizes.head_dim, pairing, base
        self.gamma, self.scale_base = gamma, scale_base

    def prepare(self, position_ids_BT: Tensor, keep_BT: Tensor | None) -> tuple[tuple[Tensor, Tensor], ...]:
        """Return cos and sin for q, and those for k, [B, 1, T, H / 2] each, float32, scale included."""
        shares = torch.arange(0, self.head_dim, 2, device=position_ids_BT.device).float() / self.head_dim
        ids_B1T1 = position_ids_BT[:, None, :, None].float()
        angles = ids_B1T1 * self.base**-shares
        zetas = (shares + self.gamma) / (1 + self.gamma)
        scale = zetas ** (ids_B1T1 / self.scale_base)
        cos, sin = angles.cos(), angles.sin()
        return (
            identity_where_dropped(cos * scale, sin * scale, keep_BT),
            identity_where_dropped(cos / scale, sin / scale, keep_BT),
        )

    def apply_to(
        self, q_BNTH: Tensor, k_BNTH: Tensor, prepared: tuple[tuple[Tensor, Tensor], ...]
    ) -> tuple[Tensor, Tensor]:
        of_q, of_k = prepared
        return turn(q_BNTH, *of_q, self.pairing), turn(k_BNTH, *of_k, self.pairing)
