"""Worked examples of how an attention ends and of where extra tokens stand, to the last figure."""

import math

import pytest
import torch

from lightning_metatok.model import TransformerConfig
from lightning_metatok.model.attention.backends import reference
from lightning_metatok.model.attention.layers import Projections
from lightning_metatok.model.extra_position import places_of

SCORES = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64).view(1, 1, 1, 3)


def with_sink(b: float) -> torch.Tensor:
    """Probabilities of three keys beside a sink of logit `b`."""
    return reference.weights(SCORES, torch.tensor([b], dtype=torch.float64)).flatten()


@pytest.mark.parametrize(
    ("b", "expected"),
    [(0.3, [0.15329077, 0.03420379, 0.68700157]), (0.0, [0.15844471, 0.03535379, 0.71009992])],
)
def test_what_a_sink_leaves_to_three_keys(b: float, expected: list[float]) -> None:
    assert with_sink(b).tolist() == pytest.approx(expected, abs=5e-9)


def test_a_row_beside_a_sink_sums_to_less_than_one() -> None:
    assert with_sink(0.3).sum().item() == pytest.approx(0.87449613, abs=1e-8)


def test_a_sink_of_minus_infinity_is_the_softmax() -> None:
    softmax = reference.weights(SCORES).flatten()
    torch.testing.assert_close(softmax, SCORES.flatten().softmax(dim=0))
    assert torch.equal(with_sink(-math.inf), softmax)
    gaps = [(with_sink(b) - softmax).abs().max().item() for b in (0.0, -5.0, -10.0, -20.0)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] < 1e-9


@pytest.mark.parametrize(("logit", "share"), [(0.0, 0.5), (4.0, 0.982)])
@pytest.mark.parametrize("gate", ["head", "element"])
def test_a_gate_of_a_known_logit(gate: str, logit: float, share: float) -> None:
    config = TransformerConfig(n_layers=1, n_heads=2, d_model=16, vocab_size=30, max_positions=8, gate=gate)
    weights = Projections(config).double()
    x = torch.zeros(1, 16, dtype=torch.float64)
    x[0, 0] = 1
    with torch.no_grad():
        weights.gate.weight.zero_()
        weights.gate.weight[:, 0] = logit
    heads = torch.randn(1, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(weights.gated(heads, x), heads.flatten(1) * share, atol=0, rtol=2e-5)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("last", [0, 1, 2, 3, 3, 4, 5, 6, 7, 7]),
        ("next", [0, 1, 2, 3, 4, 4, 5, 6, 7, 8]),
        ("own", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_positions_behind_chunks_of_four(choice: str, expected: list[int]) -> None:
    extra_1T = torch.tensor([[False, False, False, False, True] * 2])
    assert places_of(choice, torch.arange(10)[None], extra_1T).tolist() == [expected]
