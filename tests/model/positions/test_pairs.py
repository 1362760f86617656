"""The kernel that turns pairs equals the formula, forward and backward, in every layout and precision."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from lightning_metatok.model.positions.pairs import Pairing, turn, turn_plainly

B, N, T, H = 2, 3, 5, 8


def case(dtype: torch.dtype, rotary_dim: int, strided: bool) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, T, 2, N, H, generator=generator, dtype=torch.float64).to(dtype)
    x_BNTH = x[:, :, 1].transpose(1, 2) if strided else x[:, :, 1].transpose(1, 2).contiguous()
    angles = torch.randn(1, 1, T, rotary_dim // 2, generator=generator)
    scale = 1.3  # as YaRN and XPos have one
    return x_BNTH.detach(), scale * angles.cos(), scale * angles.sin()


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize(("rotary_dim", "strided"), [(H, True), (4, False)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_turning_equals_the_formula(dtype: torch.dtype, rotary_dim: int, strided: bool, pairing: Pairing) -> None:
    x, cos, sin = case(dtype, rotary_dim, strided)
    ours, plain = x.clone().requires_grad_(), x.clone().requires_grad_()
    turned, expected = turn(ours, cos, sin, pairing), turn_plainly(plain, cos, sin, pairing)
    assert turned.dtype == expected.dtype == dtype
    # Products and sums are rounded one by one or as one: the last bit of what is kept.
    tolerance = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(turned, expected, rtol=tolerance, atol=tolerance)
    above = torch.randn(turned.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    turned.backward(above)
    expected.backward(above)
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad, plain.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_its_gradient_is_that_of_finite_differences(pairing: Pairing) -> None:
    x, cos, sin = case(torch.float64, 4, True)
    assert gradcheck(lambda x: turn(x, cos.double(), sin.double(), pairing), x.clone().requires_grad_())


def test_angles_that_are_learned_get_their_gradient() -> None:
    x, cos, sin = case(torch.float64, H, False)
    assert gradcheck(lambda c, s: turn(x, c, s, "half"), (cos.double().requires_grad_(), sin.double().requires_grad_()))
