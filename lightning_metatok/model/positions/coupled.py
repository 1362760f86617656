"""Position coupling (Cho et al. 2024, arXiv 2405.20671): tokens that belong together have the same position.

x_t = E(token_t) + W[id_t + start]          W: max_positions x D          ids come with the data

      6 5 3 + 0 4 9 = 2 0 7 0               653 + 049 = 702, answer reversed, with a digit more
id    3 2 1 0 3 2 1 0 1 2 3 4               the digits of one place have one id, and so has the sum's digit there

A task gives the ids (`data.task_options.coupled`); they count from 0. In training all ids of a row are moved by a
random start, in evaluation by the option `start`, as in `learned` with random_start, which is the baseline: consecutive
ids, moved alike. The table must be longer than the largest id. Where keep is False nothing is added. Learned;
max_positions * D weights and a look-up.

predict: true is predictive position coupling (Golowich et al. 2025, arXiv 2502.16792): a second head, max_positions * D
weights, learns the id of the next token beside the token (cross-entropy at the answer's tokens, added to theirs), and
`generate` gives each new token the id that was predicted for it. The prompt's ids still come with the data. Predicting
changes nothing where ids are given: with the same weights, the logits of tokens are those of position coupling. A token
of an answer counts as right when its predicted id is, too, because generation would go on from that id.
"""

from typing import Annotated

from torch import Tensor, nn

from lightning_metatok.model.positions.base import Sizes
from lightning_metatok.model.positions.learned import LearnedPositions
from lightning_metatok.model.positions.options import at_least


class CoupledPositions(LearnedPositions):
    """A learned table that is read at the ids of a task."""

    equation = "x + W[id], ids of the task: what belongs together shares one"
    learned = "D an id"
    claims = "in arithmetic, yes"
    needs_task_ids = True

    def __init__(
        self,
        sizes: Sizes,
        *,
        random_start: bool = True,
        start: Annotated[int, at_least(0)] = 0,
        predict: bool = False,
    ) -> None:
        super().__init__(sizes, random_start=random_start, start=start)
        self.predicts_ids = predict
        self.head = nn.Linear(sizes.d_model, sizes.max_positions, bias=False) if predict else None

    def id_logits(self, hidden: Tensor) -> Tensor:
        assert self.head is not None, "position_options.predict is false"
        logits: Tensor = self.head(hidden)
        return logits[..., self.start :]  # the head knows rows of the table, of which id 0 has the start
