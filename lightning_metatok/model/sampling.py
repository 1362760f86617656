"""One token out of logits: repetition penalty, temperature, top-k, top-p, min-p, then a draw; in this order.

    logits        3.0  2.0  1.0 -1.0        repetition_penalty 2 halves what is above 0 and doubles what is below, for
    temperature   divides them              ids that were read or written already (Keskar et al. 2019, arXiv 1909.05858)
    top_k = 3      x    x    x   -          as many likeliest ids
    top_p = 0.9    x    x    -   -          the fewest likeliest ids that hold this much probability together
    min_p = 0.5    x    -    -   -          ids at least this times as likely as the likeliest (arXiv 2407.01082)
    u in [0, 1)                             the id at which the cumulated probabilities pass u

Each sample of a batch has random numbers of its own, a step each, so that it is continued alike whatever stands beside
it and however many steps are asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_metatok.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest id.
        top_k, top_p, min_p: which ids may be drawn, as above; None: all.
        repetition_penalty: 1 leaves the logits alone; above 1 makes ids less likely that stand in the sample.
        seed: of the draws; None draws one from torch's own generator.

    Raises:
        UserError: a value out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for key, right, expected in (
            ("temperature", self.temperature >= 0, "0 (greedy) or more"),
            ("top_k", self.top_k is None or self.top_k >= 1, "at least 1"),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, "a number in (0, 1]"),
            ("min_p", self.min_p is None or 0 <= self.min_p <= 1, "a number in [0, 1]"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "a positive number"),
        ):
            if not right:
                raise UserError(f"{key}={getattr(self, key)!r}: expected {expected}")

    def draws(self, n_steps: int, samples: Sequence[int]) -> Tensor | None:
        """Return random numbers in [0, 1), float64 [n_steps, B], of the samples with these numbers; None: greedy."""
        if self.temperature == 0:
            return None
        seed = int(torch.randint(2**62, ())) if self.seed is None else self.seed
        source = torch.Generator().manual_seed(seed)
        seeds = [int(torch.randint(2**62, (), generator=source)) for _ in range(max(samples) + 1)]
        streams = (torch.Generator().manual_seed(seeds[sample]) for sample in samples)
        drawn = [torch.rand(n_steps, generator=stream, dtype=torch.float64) for stream in streams]
        return torch.stack(drawn, dim=1)

    def choose(self, logits_BV: Tensor, u_B: Tensor | None, present_BV: Tensor | None = None) -> Tensor:
        """Return one id a sample, [B].

        Args:
            logits_BV: -inf where an id is forbidden.
            u_B: numbers in [0, 1), float64; None: greedy.
            present_BV: bool, ids that stand in the sample already; needed for `repetition_penalty` alone.
        """
        if present_BV is not None:
            penalty = self.repetition_penalty
            lowered_BV = torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
            logits_BV = torch.where(present_BV, lowered_BV, logits_BV)
        if u_B is None:
            return logits_BV.argmax(dim=-1)
        p_BV = self._narrowed(logits_BV).softmax(dim=-1, dtype=torch.float64)
        passed_BV = p_BV.cumsum(dim=-1)
        # The sum of all may be a little below 1: u is a share of it, so that it is passed somewhere.
        id_B1 = torch.searchsorted(passed_BV, u_B.unsqueeze(-1) * passed_BV[:, -1:], right=True)
        return id_B1.squeeze(-1).clamp_max(logits_BV.shape[-1] - 1)

    def _narrowed(self, logits_BV: Tensor) -> Tensor:
        """The logits divided by the temperature, -inf at ids that may not be drawn."""
        # Near 0 and near infinity a quotient would overflow, or 0 / 0 and inf / inf meet; the shift is what softmax
        # does.
        floats = torch.finfo(logits_BV.dtype)
        logits_BV = logits_BV - logits_BV.amax(dim=-1, keepdim=True)
        logits_BV = logits_BV / min(max(self.temperature, floats.tiny), floats.max)
        if self.top_k is not None:
            least_B1 = logits_BV.topk(min(self.top_k, logits_BV.shape[-1])).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
        if self.top_p is not None:
            sorted_BV, ids_BV = logits_BV.softmax(dim=-1).sort(dim=-1, descending=True)
            # What stands before a token already holds top_p: the token is not needed. The first is always kept.
            surplus_BV = sorted_BV.cumsum(dim=-1) - sorted_BV >= self.top_p
            logits_BV = logits_BV.masked_fill(surplus_BV.scatter(-1, ids_BV, surplus_BV), -torch.inf)
        if self.min_p is not None:
            p_BV = logits_BV.softmax(dim=-1)
            logits_BV = logits_BV.masked_fill(p_BV < self.min_p * p_BV.amax(dim=-1, keepdim=True), -torch.inf)
        return logits_BV
