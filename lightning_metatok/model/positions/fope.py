"""FoPE (Hua et al. 2025, arXiv 2412.17739): rotary positions whose pairs are Fourier series, different in every head.

    omega_p = base^(-2p / H)                 those below 2 pi / T_train never turn once in training: set to 0 (`floor`)
    cos_nf(t) = sum over the D others of cos(omega_p t) A_npf        f = 0 ... F - 1, `series` = F <= D
    sin_nf(t) = sum over the D others of sin(omega_p t) B_npf        A, B = step identity + noise
    q_t, k_t -> turned by (cos_nf(t), sin_nf(t)); pair f is (x_f, x_{f + H/2})

The step identity has a one at row f * ceil(D / F) of column f; the noise is Xavier-normal with gain `sigma` (0.3; the
authors take 0.3 at 60M, 0.4 at 180M, 0.6 at 1.2B parameters). A and B are drawn once, a head, and NOT trained: they are
buffers of the checkpoint. F is H / 4 at most, as in the authors' code; without the floor, H / 2, so that sigma=0 and
floor=false is rotary. Pairs beyond F have frequency 0, filled by `padding`:

    zero_frequency   cos = 1, sin = 0: what frequency 0 means, as the paper writes it; the default
    ones             cos = sin = 1: what the authors' code does, a turn by 45 degrees that doubles these pairs' scores

With sigma > 0 scores do not depend on the distance alone. Where keep is False q and k stay as they are. Costs
O(B N T D F) for the series once a forward pass, and what rotary positions cost in each layer. T_train is
original_max_positions, or model.max_positions when not given, which is then fixed by training like all options.
"""

import math
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from lightning_metatok.model.positions.base import PositionEncoding, Sizes
from lightning_metatok.model.positions.options import above, at_least, refuse
from lightning_metatok.model.positions.pairs import identity_where_dropped, turn
from lightning_metatok.model.start import Start


class FourierPositions(PositionEncoding):
    """Rotation of q and k by series of frequencies."""

    equation = "pairs turned by a series of w, those of less than a turn left out"
    claims = "yes"
    rotates = True
    needs_even_head_dim = True

    cos_NDF: Tensor
    sin_NDF: Tensor

    def __init__(
        self,
        sizes: Sizes,
        *,
        base: Annotated[float, above(1)] = 10000.0,
        sigma: Annotated[float, at_least(0)] = 0.3,
        floor: bool = True,
        padding: Literal["zero_frequency", "ones"] = "zero_frequency",
        series: Annotated[int | None, at_least(1)] = None,
        original_max_positions: Annotated[int | None, at_least(1)] = None,
    ) -> None:
        super().__init__()
        half = sizes.head_dim // 2
        self.fixes_max_positions = floor and original_max_positions is None
        self.shares = [p / half for p in range(half)]
        if floor:
            lowest = 2 * math.pi / (original_max_positions or sizes.max_positions)
            self.shares = [share for share in self.shares if base**-share >= lowest]
        if not self.shares:
            refuse("floor", True, "false, because no frequency turns once within so few positions")
        most = min(len(self.shares), max(half // 2, 1) if floor else half)
        if series is not None and series > len(self.shares):
            refuse("series", series, f"at most {len(self.shares)}, the frequencies above the floor")
        self.base, self.n_free, self.padding = base, half - (series or most), padding
        size = (sizes.n_heads, len(self.shares), series or most)
        for name in ("cos_NDF", "sin_NDF"):
            self.register_buffer(name, torch.empty(size))
        self.sigma = sigma
        self.draw(Start.anew())

    def draw(self, start: Start) -> None:
        for name in ("cos_NDF", "sin_NDF"):
            matrix = getattr(self, name)
            start(name, matrix, nn.init.xavier_normal_, self.sigma)
            matrix += step_identity(*matrix.shape[1:]).to(matrix)

    def prepare(self, position_ids_BT: Tensor, keep_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the series, [B, N, T, H / 2] each, float32."""
        shares_D = torch.tensor(self.shares, device=position_ids_BT.device)
        angles_B1TD = position_ids_BT[:, None, :, None].float() * self.base**-shares_D
        cos = angles_B1TD.cos() @ self.cos_NDF.float()
        sin = angles_B1TD.sin() @ self.sin_NDF.float()
        free = (*cos.shape[:-1], self.n_free)
        cos = torch.cat((cos, cos.new_ones(free)), dim=-1)
        sin = torch.cat((sin, sin.new_full(free, 1.0 if self.padding == "ones" else 0.0)), dim=-1)
        return identity_where_dropped(cos, sin, keep_BT)

    def apply_to(self, q_BNTH: Tensor, k_BNTH: Tensor, prepared: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        cos, sin = prepared
        return turn(q_BNTH, cos, sin, "half"), turn(k_BNTH, cos, sin, "half")


def step_identity(n_rows: int, n_columns: int) -> Tensor:
    """Ones at row f * ceil(rows / columns) of column f, where there is such a row; else zeros."""
    matrix = torch.zeros(n_rows, n_columns)
    step = -(-n_rows // n_columns)
    for column, row in enumerate(range(0, n_rows, step)):
        matrix[row, column] = 1
    return matrix
