"""How a trained rotary model reads more positions than it was trained on: scaled rotary frequencies.

Written for R turned dimensions, theta_p = base^(-2p / R), trained length L0, and s = factor:

    linear    theta_p / s                                Chen et al. 2023, arXiv 2306.15595 (position interpolation)
    ntk       theta_p with base * s^(R / (R - 2))        bloc97 2023 (NTK-aware)
    dynamic   as ntk, with s * L / L0 - (s - 1) for s    L = t + 1 at the query of position t; as trained up to L0
    yarn      theta_p / s for slow p, theta_p for fast p and a ramp between them; q and k times 0.1 ln(s) + 1
              Peng et al. 2024, arXiv 2309.00071; slow: fewer than beta_slow = 1 turns within L0, fast: more than
              beta_fast = 32; attention_factor sets the multiplier, whose square is the inverse temperature of scores

DYNAMIC scaling gives every query the frequencies of its own length, for itself and for all keys that it sees. That is
what generation with a key-value cache of keys before rotation computes, so a full pass equals generation step by step,
and packed documents have each their own length. (A full pass of Hugging Face takes the length of the whole input for
all queries: the last row is the same.) No row shares its keys' angles with another, so scores are computed as

    s_tj = sum over p of (q_p . k_p) cos(theta_p(t) (t - j)) - (q_p x k_p) sin(theta_p(t) (t - j))

pair by pair: O(Q K R) sines instead of O(T R), several times the time of plain attention, R / 2 passes over the scores.
The others cost what rotary positions cost.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from lightning_metatok.model.positions.base import Rows
from lightning_metatok.model.positions.options import refuse
from lightning_metatok.model.positions.pairs import Pairing, pairs

Scaling = Literal["none", "linear", "ntk", "dynamic", "yarn"]


class Frequencies:
    """The angles by which rotary pairs turn from one position to the next."""

    def __init__(
        self,
        rotary_dim: int,
        base: float,
        scaling: Scaling,
        factor: float,
        original_max_positions: int | None,
        beta_fast: float,
        beta_slow: float,
        attention_factor: float | None,
    ) -> None:
        """Take the options of `RotaryPositions`.

        Raises:
            UserError: options that do not go together.
        """
        if scaling == "none" and factor != 1:
            refuse("factor", factor, "1 with scaling='none'; or scaling: linear, ntk, dynamic or yarn")
        if scaling in ("dynamic", "yarn") and original_max_positions is None:
            refuse("original_max_positions", None, f"the length trained on, which scaling={scaling!r} needs")
        if scaling in ("ntk", "dynamic") and rotary_dim == 2:
            refuse("scaling", scaling, "linear or yarn, because one pair of dimensions has no base")
        if scaling != "yarn" and (beta_fast, beta_slow, attention_factor) != (32, 1, None):
            refuse("scaling", scaling, "yarn, which alone takes beta_fast, beta_slow and attention_factor")
        if beta_fast <= beta_slow:
            refuse("beta_fast", beta_fast, f"more than beta_slow={beta_slow:g}")
        self.rotary_dim, self.base, self.scaling, self.factor = rotary_dim, base, scaling, factor
        self.original = original_max_positions
        self.beta_fast, self.beta_slow = beta_fast, beta_slow
        default = 0.1 * math.log(factor) + 1 if scaling == "yarn" else 1.0
        self.attention_factor = default if attention_factor is None else attention_factor

    def fixed(self, device: torch.device) -> Tensor:
        """Radians a position of each pair, float32 [R / 2], for all scalings but dynamic."""
        if self.scaling == "ntk":
            return self._powers(self.base * self.factor ** (self.rotary_dim / (self.rotary_dim - 2)), device)
        thetas = self._powers(self.base, device)
        if self.scaling == "linear":
            return thetas / self.factor
        if self.scaling == "yarn":
            low, high = self._ramp()
            slow = ((torch.arange(len(thetas), device=device) - low) / (high - low)).clamp(0, 1)
            return thetas / self.factor * slow + thetas * (1 - slow)
        return thetas

    def of_lengths(self, lengths: Tensor) -> Tensor:
        """Radians a position of each pair for queries that see so many positions, [..., R / 2]: dynamic."""
        assert self.original is not None
        stretch = (self.factor * lengths.float() / self.original - (self.factor - 1)).clamp(min=1)
        bases: Tensor = self.base * stretch ** (self.rotary_dim / (self.rotary_dim - 2))
        return bases.unsqueeze(-1) ** -self._exponents(lengths.device)

    def _ramp(self) -> tuple[float, float]:
        """Pairs between which YaRN goes over from unchanged to interpolated."""
        original = self.original
        assert original is not None

        def pair_of(turns: float) -> float:
            return self.rotary_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(self.base))

        low = max(math.floor(pair_of(self.beta_fast)), 0)
        high = min(math.ceil(pair_of(self.beta_slow)), self.rotary_dim - 1)
        return low, high if high != low else high + 0.001

    def _exponents(self, device: torch.device) -> Tensor:
        return torch.arange(0, self.rotary_dim, 2, device=device).float() / self.rotary_dim

    def _powers(self, base: float, device: torch.device) -> Tensor:
        powers: Tensor = base ** -self._exponents(device)
        return powers


def dynamic_scores(
    frequencies: Frequencies,
    pairing: Pairing,
    position_ids_BT: Tensor,
    keep_BT: Tensor | None,
    rows: Rows,
) -> Tensor:
    """Scores of rows whose q and k are not turned yet, each turned by the frequencies of its own length.

    A dropped position is position 0 in the angles; the length of a row is that of its query, dropped or not.
    """
    n_queries, n_keys = rows.q_BNQH.shape[-2], rows.k_BNKH.shape[-2]
    own = slice(rows.first, rows.first + n_queries)
    ids_BT = position_ids_BT if keep_BT is None else position_ids_BT * keep_BT
    thetas_BQh = frequencies.of_lengths(position_ids_BT[:, own] + 1)
    distances_B1QK = (ids_BT[:, own, None] - ids_BT[:, None, :n_keys])[:, None].float()
    q_first, q_second, q_rest = pairs(rows.q_BNQH, frequencies.rotary_dim, pairing)
    k_first, k_second, k_rest = pairs(rows.k_BNKH, frequencies.rotary_dim, pairing)
    scores_BNQK = q_rest @ k_rest.transpose(-1, -2)
    for p in range(frequencies.rotary_dim // 2):
        angles = thetas_BQh[:, None, :, None, p] * distances_B1QK
        a, b = q_first[..., p, None], q_second[..., p, None]
        c, d = k_first[..., None, :, p], k_second[..., None, :, p]
        scores_BNQK = scores_BNQK + (a * c + b * d) * angles.cos() - (b * c - a * d) * angles.sin()
    return (scores_BNQK * rows.q_BNQH.shape[-1] ** -0.5).to(rows.q_BNQH.dtype)
