"""Learned absolute positions: one vector a position, added to the token embedding (GPT-2's `wpe`).

x_t = E(token_t) + W[position_t + start]          W: max_positions x D

With random_start, `start` is drawn in training, for each row of a batch, from all that leave the row inside the table
(`moved`, which MetaTokenLM asks once a batch): a table longer than the rows is then trained everywhere, so that longer
rows can be read. It is the baseline of position coupling (Cho et al. 2024, arXiv 2405.20671). Everywhere else it is the
option `start`, 0 by default. Random starts train the ends of a table least (position 0 by one start alone), so rows to
be read should start inside: with rows of R in training, those of L have all positions trained alike from start = R on,
in a table of L + 2 R.

Where keep is False nothing is added. Learned; max_positions * D weights, and a look-up. It cannot read beyond the
table. Both options may change after training.
"""

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from lightning_metatok.model.positions.base import PositionEncoding, Sizes
from lightning_metatok.model.positions.options import at_least, refuse


class LearnedPositions(PositionEncoding):
    """A table of `max_positions` vectors. The model refuses longer sequences before the look-up."""

    equation = "x + W[i]"
    learned = "D a position"
    claims = "no: the table ends"
    embeds = True
    free_after_training: ClassVar[frozenset[str]] = frozenset({"random_start", "start"})

    def __init__(self, sizes: Sizes, *, random_start: bool = False, start: Annotated[int, at_least(0)] = 0) -> None:
        super().__init__()
        if start >= sizes.max_positions:
            refuse("start", start, f"less than max_positions={sizes.max_positions}, the rows of the table")
        self.fixed_start = start
        self.max_positions = sizes.max_positions - start
        self.draws_in_training = random_start
        self.table = nn.Embedding(sizes.max_positions, sizes.d_model)

    @property
    def start(self) -> int:
        """What is added to positions at the look-up; 0 where `moved` has added another."""
        return 0 if self.draws_in_training and self.training else self.fixed_start

    def moved(self, position_ids_BT: Tensor) -> Tensor:
        if not (self.draws_in_training and self.training):
            return position_ids_BT
        n_starts_B1 = self.table.num_embeddings - position_ids_BT.amax(dim=1, keepdim=True)
        return position_ids_BT + (torch.rand(n_starts_B1.shape, device=n_starts_B1.device) * n_starts_B1).long()

    def embed(self, position_ids_BT: Tensor, keep_BT: Tensor | None) -> Tensor:
        embedded_BTD: Tensor = self.table(position_ids_BT + self.start)
        return embedded_BTD if keep_BT is None else embedded_BTD * keep_BT.unsqueeze(-1)
