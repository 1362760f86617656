"""Numbers of attention against small cases worked out by hand."""

import math

import pytest
import torch

from lightning_metatok.analysis import dynamics

HALF = torch.tensor([[[[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.25, 0.5, 0], [0.25, 0.25, 0.25, 0.25]]]])
META = torch.tensor([[False, True, False, False]])
LATER = torch.tensor([[False, False, True, True]])


def test_entropy_and_mass_of_rows() -> None:
    assert dynamics.mean_entropy(HALF, LATER).item() == pytest.approx((1.5 * math.log(2) + math.log(4)) / 2)
    assert dynamics.mass_on(HALF, META, LATER).item() == pytest.approx(0.25)
    assert dynamics.mass_on(HALF, torch.ones_like(META), LATER).item() == pytest.approx(1)


def test_a_boost_is_what_scores_of_some_keys_are_above_the_others() -> None:
    scores = torch.tensor([[[[0.0, 0, 0, 0], [1, 3, 0, 0], [1, 3, 2, 0], [0, 5, 0, 0]]]])
    scores = scores.masked_fill(torch.ones(4, 4).triu(1).bool(), -math.inf)
    assert dynamics.logit_boost(scores, META, LATER).item() == pytest.approx(((3 - 1.5) + 5) / 2)
    first = torch.tensor([[True, False, False, False]])
    assert math.isnan(dynamics.logit_boost(scores, META, first).item()), "the first row sees no other"


def test_effective_rank_counts_directions() -> None:
    torch.manual_seed(0)
    line = torch.randn(50, 1) @ torch.randn(1, 8)
    assert dynamics.effective_rank(line).item() == pytest.approx(1, abs=1e-5)
    ends = torch.cat((torch.eye(4), -torch.eye(4)))
    assert dynamics.effective_rank(ends).item() == pytest.approx(4)
    assert dynamics.effective_rank(torch.ones(5, 3)).item() == pytest.approx(1), "all alike"
