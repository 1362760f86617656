"""Accuracy of answers as one torchmetrics metric, so that ranks agree: by token, and of whole answers."""

import torch
from torch import Tensor
from torchmetrics import Metric


class AnswerAccuracy(Metric):
    """Share of answer tokens that are right, and of prompts in which all of them are.

    `compute` returns ``{"token": ..., "exact": ...}``, NaN before any answer was seen. A token is right when it is the
    likeliest one after the prompt and the earlier tokens of the answer; an answer is exact if and only if greedy
    decoding writes it.
    """

    full_state_update = False
    higher_is_better = True
    right: Tensor
    tokens: Tensor
    exact: Tensor
    prompts: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "tokens", "exact", "prompts"):
            self.add_state(name, default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, right_BT: Tensor, targets_BT: Tensor) -> None:
        """Add a batch: bool `right_BT`, read where `targets_BT` is not -100."""
        scored_BT = targets_BT >= 0
        right_BT = right_BT & scored_BT
        has_answer_B = scored_BT.any(dim=1)
        self.right += right_BT.sum()
        self.tokens += scored_BT.sum()
        self.exact += (has_answer_B & (right_BT == scored_BT).all(dim=1)).sum()
        self.prompts += has_answer_B.sum()

    def compute(self) -> dict[str, Tensor]:
        """Both shares."""
        return {"token": self.right / self.tokens, "exact": self.exact / self.prompts}
