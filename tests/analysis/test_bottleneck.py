"""Information bottlenecks: the pieces against torch and by hand."""

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from lightning_metatok.analysis.bottleneck import Categorical, Gaussian, Heads, gaussian_kl


@given(st.lists(st.tuples(st.floats(-20, 20), st.floats(1e-3, 20)), min_size=1, max_size=6))
def test_kl_is_that_of_torch(dimensions: list[tuple[float, float]]) -> None:
    mean, std = torch.tensor(dimensions, dtype=torch.float64).unbind(dim=1)
    theirs = kl_divergence(Normal(mean, std), Normal(torch.zeros_like(mean), torch.ones_like(std))).sum()
    torch.testing.assert_close(gaussian_kl(mean, std), theirs, rtol=1e-10, atol=1e-12)


def test_kl_of_the_prior_is_nothing_and_that_of_a_shift_half_its_square() -> None:
    ones = torch.ones(3, 4)
    assert gaussian_kl(0 * ones, ones).tolist() == [0, 0, 0]
    assert gaussian_kl(3 * ones, ones).tolist() == [18, 18, 18]


def test_categorical_is_cross_entropy_and_its_guess_the_frequencies() -> None:
    outputs = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[0, 3, 1, 1, 2], [2, 2, 0, 1, 3]])
    nll = Categorical(4).nll(outputs, targets.unsqueeze(1))
    for fold in range(2):
        expected = torch.nn.functional.cross_entropy(outputs[fold, 1], targets[fold], reduction="none")
        torch.testing.assert_close(nll[fold, 1], expected)
    guess = Categorical(4).guess(torch.tensor([0, 0, 0, 1, 1, 2]))
    torch.testing.assert_close(guess.softmax(dim=0), torch.tensor([3, 2, 1, 0.5]) / 6.5)


def test_gaussian_is_the_normal_density_and_its_guess_the_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(7, 3, generator=generator), torch.randn(7, 3, generator=generator)
    for variance in (1.0, 0.3):
        expected = -Normal(outputs, math.sqrt(variance)).log_prob(targets).sum(dim=-1)
        torch.testing.assert_close(Gaussian(variance).nll(outputs, targets), expected)
    torch.testing.assert_close(Gaussian().guess(targets), targets.mean(dim=0))


def test_heads_start_at_the_prior_s_width_and_alike_for_all_prices() -> None:
    heads = Heads(3, 2, 5, 4, 6, torch.Generator().manual_seed(0))
    mean, std = heads.encode(torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(1)))
    assert mean.shape == std.shape == (3, 2, 7, 4)
    torch.testing.assert_close(std, torch.ones_like(std), rtol=0, atol=1e-4)
    torch.testing.assert_close(mean[:, 0], mean[:, 1])
    assert not torch.allclose(mean[0], mean[1]), "folds start apart"
    assert heads.decode(mean).shape == (3, 2, 7, 6)


def test_a_head_s_costs_are_those_of_its_own_weights() -> None:
    """One product serves all prices; each must get its own part of it."""
    heads, likelihood = Heads(2, 3, 5, 4, 6, torch.Generator().manual_seed(0)), Categorical(6)
    noise = torch.Generator().manual_seed(5)
    for parameter in heads.parameters:
        parameter += torch.randn(parameter.shape, generator=noise)
    x_FND, y_FN = torch.randn(2, 7, 5, generator=noise), torch.arange(14).view(2, 7) % 6
    rate, distortion = heads.costs(x_FND, y_FN, likelihood, torch.Generator().manual_seed(1))
    drawn = torch.randn(2, 1, 7, 4, generator=torch.Generator().manual_seed(1))
    for fold, price in np.ndindex(2, 3):
        mean_FBDZ, std_FBDZ, shift_FB1E, decode_FBZO, shift_FB1O = (p[fold, price] for p in heads.parameters)
        mean = x_FND[fold] @ mean_FBDZ + shift_FB1E[:, :4]
        std = torch.nn.functional.softplus(x_FND[fold] @ std_FBDZ + shift_FB1E[:, 4:] + math.log(math.e - 1)) + 1e-5
        outputs = (mean + std * drawn[fold, 0]) @ decode_FBZO + shift_FB1O
        torch.testing.assert_close(rate[fold, price], gaussian_kl(mean, std))
        torch.testing.assert_close(distortion[fold, price], likelihood.nll(outputs, y_FN[fold]), rtol=1e-4, atol=1e-5)
