"""Rotary positions (Su et al. 2021): q and k are turned by angles that grow with the position.

    angle(t, i) = t * base^(-2i / H)           pair i of a head is (x_i, x_{i + H/2}), as in Llama
    q_t . k_s then depends on t - s only.

Angles are float32 whatever the model's dtype: in bfloat16 neighbouring positions beyond 256 would coincide.
No table is kept, so positions may be as large and as irregular as the caller likes.
"""

from typing import Annotated, ClassVar

import torch
from torch import Tensor

from lightning_metatok.model.positions.base import PositionEncoding, Sizes
from lightning_metatok.model.positions.options import above


class RotaryPositions(PositionEncoding):
    """Rotation of q and k; where keep is False the angle is 0, which leaves q and k as they are."""

    rotates = True
    needs_even_head_dim = True
    free_after_training: ClassVar[frozenset[str]] = frozenset({"base"})

    def __init__(self, sizes: Sizes, *, base: Annotated[float, above(1)] = 10000.0) -> None:
        super().__init__()
        assert sizes.head_dim % 2 == 0, f"rotary positions turn pairs: head_dim={sizes.head_dim} is odd"
        self.head_dim = sizes.head_dim
        self.base = base

    def prepare(self, position_ids_BT: Tensor, keep_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return cos and sin, [B, 1, T, H / 2] each, float32."""
        exponents = torch.arange(0, self.head_dim, 2, device=position_ids_BT.device).float() / self.head_dim
        ids_BT = position_ids_BT if keep_BT is None else position_ids_BT * keep_BT
        angles_B1Th = ids_BT[:, None, :, None].float() * self.base**-exponents
        return angles_B1Th.cos(), angles_B1Th.sin()

    def apply_to(self, q_BNTH: Tensor, k_BNTH: Tensor, prepared: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        cos, sin = prepared
        return _turn(q_BNTH, cos, sin), _turn(k_BNTH, cos, sin)


def _turn(x_BNTH: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x_BNTH.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x_BNTH.dtype)
