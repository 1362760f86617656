"""Loss per source token counts scored targets only, and adds up over batches."""

import math

import pytest
import torch
import torch.nn.functional as F

from lightning_metatok.lit.metrics import SourceTokenLoss


def test_two_unequal_batches_weigh_by_their_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    bytes_V = torch.tensor([0, 1, 2, 3, 4])
    logits = torch.randn(4, 6, 5, generator=generator)
    targets = torch.randint(0, 5, (4, 6), generator=generator)
    targets[0, 1:] = -100
    metric = SourceTokenLoss()
    for rows in (slice(0, 1), slice(1, 4)):
        nll = F.cross_entropy(logits[rows].flatten(0, 1), targets[rows].flatten(), ignore_index=-100, reduction="none")
        metric.update(nll.view_as(targets[rows]), targets[rows], bytes_V)
    scored = targets >= 0
    total = F.cross_entropy(logits[scored], targets[scored], reduction="sum").item()
    values = metric.compute()
    assert values["nats"].item() == pytest.approx(total / scored.sum().item(), rel=1e-6)
    expected_bits = total / math.log(2) / bytes_V[targets[scored]].sum().item()
    assert values["bits_per_byte"].item() == pytest.approx(expected_bits, rel=1e-6)


def test_a_uniform_guess_costs_the_logarithm_of_the_vocabulary() -> None:
    metric = SourceTokenLoss()
    targets = torch.tensor([[1, 2, 3, -100]])
    metric.update(torch.tensor([[math.log(8)] * 3 + [0.0]]), targets, torch.ones(8, dtype=torch.int64))
    assert metric.compute()["nats"].item() == pytest.approx(math.log(8), rel=1e-6)
    assert metric.compute()["bits_per_byte"].item() == pytest.approx(3.0, rel=1e-6)


def test_reset_forgets() -> None:
    metric = SourceTokenLoss()
    metric.update(torch.ones(1, 2), torch.tensor([[0, 1]]), torch.ones(2))
    metric.reset()
    metric.update(torch.full((1, 2), 3.0), torch.tensor([[0, 1]]), torch.ones(2))
    assert metric.compute()["nats"].item() == 3.0
