"""Learned absolute positions: one vector a position, added to the token embedding (GPT-2's `wpe`).

x_t = E(token_t) + W[position_t]          W: max_positions x D
"""

from torch import Tensor, nn

from lightning_metatok.model.positions.base import PositionEncoding, Sizes


class LearnedPositions(PositionEncoding):
    """A table of `max_positions` vectors. The model refuses longer sequences before the look-up."""

    embeds = True

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.max_positions = sizes.max_positions
        self.table = nn.Embedding(sizes.max_positions, sizes.d_model)

    def embed(self, position_ids_BT: Tensor, keep_BT: Tensor | None) -> Tensor:
        embedded_BTD: Tensor = self.table(position_ids_BT)
        return embedded_BTD if keep_BT is None else embedded_BTD * keep_BT.unsqueeze(-1)
