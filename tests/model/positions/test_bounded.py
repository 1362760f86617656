"""Trained parameters with bounds: what is outside reads as the bound, and comes back."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_metatok.model import positions
from lightning_metatok.model.positions.bounded import bounded
from tests.model.positions.test_scores import make

OUTSIDE = [
    ("kerple_log", {}, "a", -0.3, 0.01),
    ("kerple_log", {}, "p", -0.3, 0.01),
    ("kerple_power", {}, "a", -0.3, 0.01),
    ("kerple_power", {}, "p", -0.3, 0.01),
    ("kerple_power", {}, "p", 2.4, 2.0),
    ("dape", {"over": "kerple"}, "static.a", -0.3, 0.01),
    ("dape", {"over": "kerple"}, "static.p", -0.3, 0.01),
]
"""Family, options, parameter, a value outside its bounds, the bound."""


def bias(family: positions.PositionEncoding) -> Tensor:
    """What is added to scores of 0 in layer 1, [1, 3, 6, 6]."""
    return family.score(torch.zeros(1, 3, 6, 6, dtype=torch.float64), torch.arange(6)[None], None, layer=1)


@pytest.mark.parametrize(("name", "options", "parameter", "value", "bound"), OUTSIDE)
def test_a_parameter_outside_its_bounds_comes_back_under_gradient_steps(
    name: str, options: dict[str, Any], parameter: str, value: float, bound: float
) -> None:
    family, wanted = make(name, **options), make(name, **options)
    inside = bound + 0.1 if value < bound else bound - 0.1
    parameters = [dict(x.named_parameters())[f"{parameter}.1"] for x in (family, wanted)]
    with torch.no_grad():
        parameters[0].fill_(value)
        parameters[1].fill_(bound)
        assert torch.equal(bias(family), bias(wanted))  # it reads as the bound, to the last bit
        parameters[1].fill_(inside)
    optimizer, target = torch.optim.SGD([parameters[0]], lr=1e-3), bias(wanted).detach()
    came_back = torch.zeros(3, dtype=torch.bool)
    for _ in range(1000):
        optimizer.zero_grad()
        (bias(family) - target).square().mean().backward()
        assert parameters[0].grad is not None
        parameters[0].grad.sign_()  # which way it goes is what counts, not how fast
        optimizer.step()
        came_back |= (parameters[0].detach() - bound) * (inside - bound) > 0
        if came_back.all():
            return
    raise AssertionError(f"{parameter} stays at {parameters[0].tolist()}")


@pytest.mark.parametrize("name", ["kerple_log", "kerple_power"])
def test_no_parameter_is_dead_from_the_start(name: str) -> None:
    torch.manual_seed(0)
    heads = 2000
    family = positions.build(name, n_layers=1, n_heads=heads, head_dim=1, d_model=heads, max_positions=8)
    outside = sum(int((p < 0.01).sum()) for p in family.parameters())
    assert outside > 0  # some are drawn there
    family.score(torch.zeros(1, heads, 3, 3), torch.arange(3)[None], None).sum().backward()
    assert all((p.grad != 0).all() for p in family.parameters())


def test_bounded_clamps_exactly_and_passes_gradients_through() -> None:
    x = torch.tensor([-1e30, -0.1, 0.1, 0.3, 7.0, 1e30], requires_grad=True)
    clamped = bounded(x, 0.1, 2.0)
    assert torch.equal(clamped, torch.tensor([0.1, 0.1, 0.1, 0.3, 2.0, 2.0]))
    clamped.backward(torch.arange(6.0))
    assert torch.equal(x.grad, torch.arange(6.0))
    assert torch.equal(bounded(x, least=0.1).detach(), x.detach().clamp(min=0.1))
