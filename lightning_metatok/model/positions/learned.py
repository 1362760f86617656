"""Learned absolute positions: one vector a position, added to the token embedding (GPT-2's `wpe`).

x_t = E(token_t) + W[position_t]          W: max_positions x D
"""

from torch import Tensor, nn

from lightning_metatok.model.positions.base import PositionEncoding


class LearnedPositions(PositionEncoding):
    """A table of `max_positions` vectors. The model refuses longer sequences before the look-up."""

    embeds = True

    def __init__(self, *, d_model: int, max_positions: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        self.max_positions = max_positions
        self.table = nn.Embedding(max_positions, d_model)

    def embed(self, position_ids_BT: Tensor, keep_BT: Tensor | None) -> Tensor:
        embedded_BTD: Tensor = self.table(position_ids_BT)
        return embedded_BTD if keep_BT is None else embedded_BTD * keep_BT.unsqueeze(-1)
