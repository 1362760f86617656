"""The loss in chunks is that of the whole logits, in value and gradient, and never holds them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_metatok.model import loss

K, D, V = 23, 16, 301
WAYS = {"summed": lambda *a: loss.summed(*a, rows=5).sum, "each": lambda *a: loss.each(*a, rows=5).sum()}


def case(dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(K, D, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(V, D, generator=generator, dtype=dtype).requires_grad_()
    return hidden, weight, torch.randint(V, (K,), generator=generator)


def gradients(of: Callable[..., Tensor], hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """Value and both gradients of a mean."""
    value = of(hidden, weight, targets) / K
    return value.detach(), *torch.autograd.grad(value, (hidden, weight))


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("way", WAYS)
def test_value_and_gradients_are_those_of_the_whole_logits(way: str) -> None:
    exact = gradients(lambda *a: loss.whole(*a).sum(), *case(torch.float64))
    assert all(apart(*pair) < 1e-13 for pair in zip(gradients(WAYS[way], *case(torch.float64)), exact, strict=True))
    hidden, weight, targets = case(torch.float64)
    hidden, weight = (x.detach().float().requires_grad_() for x in (hidden, weight))
    plain = gradients(lambda *a: loss.whole(*a).sum(), hidden, weight, targets)
    for found, ours, twin in zip(gradients(WAYS[way], hidden, weight, targets), plain, exact, strict=True):
        assert apart(found, ours) < 1e-6
        assert apart(found.double(), twin) < 1e-6  # float32 of 301 logits


@pytest.mark.slow  # the compiler takes some seconds
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_fused_it_is_the_same(dtype: torch.dtype) -> None:
    found, twin = (
        gradients(lambda *a, fused=fused: loss.summed(*a, rows=5, fused=fused).sum, *case(dtype))
        for fused in (True, False)
    )
    limit = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype]
    assert all(apart(*pair) < limit for pair in zip(found, twin, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_under_bf16_autocast_it_is_as_far_from_float64_as_the_plain_loss(way: str) -> None:
    exact = gradients(lambda *a: loss.whole(*a).sum(), *case(torch.float64))
    hidden, weight, targets = case(torch.float64)
    hidden, weight = (x.detach().float().requires_grad_() for x in (hidden, weight))

    def mixed(of: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16):
            value = of(hidden, weight, targets) / K
        assert value.dtype == torch.float32
        return value.detach(), *torch.autograd.grad(value, (hidden, weight))

    plain = mixed(lambda *a: loss.whole(*a).sum())
    for found, ours, twin in zip(mixed(WAYS[way]), plain, exact, strict=True):
        assert apart(found.double(), twin) < max(1.1 * apart(ours.double(), twin), 1e-3)


def test_losses_of_rows_can_be_weighed_apart() -> None:
    hidden, weight, targets = case()
    weights_K = torch.rand(K, generator=torch.Generator().manual_seed(1))
    weights_K[3] = 0
    ours = gradients(lambda *a: (loss.each(*a, rows=4) * weights_K).sum(), hidden, weight, targets)
    plain = gradients(lambda *a: (loss.whole(*a) * weights_K).sum(), hidden, weight, targets)
    assert all(apart(*pair) < 1e-6 for pair in zip(ours, plain, strict=True))


def test_it_says_the_loss_of_each_row_and_its_likeliest_id() -> None:
    hidden, weight, targets = case()
    found = loss.summed(hidden, weight, targets, likeliest=True, rows=7)
    torch.testing.assert_close(found.nll_K, loss.whole(hidden, weight, targets))
    assert torch.equal(found.likeliest_K, F.linear(hidden, weight).argmax(dim=1))
    assert found.sum.requires_grad
    assert not found.nll_K.requires_grad
    with torch.no_grad():
        assert torch.equal(loss.each(hidden, weight, targets, rows=7), found.nll_K)


def test_no_rows_cost_nothing_and_have_gradients_of_zero() -> None:
    hidden, weight, targets = case()
    value, to_hidden, to_weight = gradients(lambda h, w, t: loss.summed(h[:0], w, t[:0]).sum, hidden, weight, targets)
    assert float(value) == float(to_hidden.abs().sum()) == float(to_weight.abs().sum()) == 0


def test_of_a_frozen_head_only_the_states_get_a_gradient() -> None:
    hidden, weight, targets = case()
    (ours,) = torch.autograd.grad(loss.summed(hidden, weight.detach(), targets, rows=5).sum, hidden)
    (plain,) = torch.autograd.grad(loss.whole(hidden, weight, targets).sum(), hidden)
    assert apart(ours, plain) < 1e-6


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation gives."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(out) if isinstance(x, Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


@pytest.mark.parametrize("way", WAYS)
def test_no_tensor_is_as_large_as_the_logits(way: str) -> None:
    hidden, weight, targets = case()
    with Largest() as seen:
        WAYS[way](hidden, weight, targets).backward()
    assert seen.elements == V * D  # the weight and its gradient; a chunk has 5 V
    with Largest() as seen:
        loss.whole(hidden, weight, targets).sum().backward()
    assert seen.elements == K * V
