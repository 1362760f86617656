"""The sharpening theorem: closed forms equal autograd, and entropy falls exactly where the condition says so."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from lightning_metatok.analysis import (
    attention_entropy,
    boosted_attention,
    entropy_slope,
    entropy_without,
    log_odds,
    sharpens,
    turning_boost,
)

LOGIT = st.floats(-8, 8)


@st.composite
def rows(draw: st.DrawFn, least: int = 2) -> tuple[Tensor, int]:
    """Logits of one row in float64, and one of its keys."""
    logits = draw(st.lists(LOGIT, min_size=least, max_size=12))
    return torch.tensor(logits, dtype=torch.float64), draw(st.integers(0, len(logits) - 1))


@st.composite
def sets(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits of one row, and a set of keys that is neither empty nor all."""
    logits, _ = draw(rows())
    chosen = draw(st.lists(st.booleans(), min_size=len(logits), max_size=len(logits)))
    assume(0 < sum(chosen) < len(chosen))
    return logits, torch.tensor(chosen)


def entropy_at(logits: Tensor, index: int | Tensor, boosts: Tensor) -> Tensor:
    return attention_entropy(boosted_attention(logits, index, boosts))


def slope_by_autograd(logits: Tensor, index: int | Tensor, at: float = 0.0) -> float:
    boost = torch.tensor(at, dtype=logits.dtype, requires_grad=True)
    entropy_at(logits, index, boost).backward()
    assert boost.grad is not None
    return boost.grad.item()


@given(rows())
def test_slope_is_the_paper_s_closed_form_and_autograd_s(row: tuple[Tensor, int]) -> None:
    logits, j = row
    p = logits.softmax(dim=-1)
    closed = -p[j] * (p[j].log() + attention_entropy(p))
    # Both lose digits to cancellation near a slope of 0; H is of order 1.
    assert entropy_slope(logits, j).item() == pytest.approx(closed.item(), abs=1e-12)
    assert entropy_slope(logits, j).item() == pytest.approx(slope_by_autograd(logits, j), abs=1e-12)


@given(sets())
def test_slope_of_a_set_of_keys_is_autograd_s(row: tuple[Tensor, Tensor]) -> None:
    logits, chosen = row
    assert entropy_slope(logits, chosen).item() == pytest.approx(slope_by_autograd(logits, chosen), abs=1e-12)


@given(sets(), st.floats(-5, 5))
def test_entropy_is_that_of_a_coin_and_of_both_sides_and_a_boost_moves_the_coin_alone(
    row: tuple[Tensor, Tensor], boost: float
) -> None:
    logits, chosen = row
    odds = log_odds(logits, chosen) + boost
    a = odds.sigmoid()
    coin = attention_entropy(torch.stack([a, 1 - a]))
    expected = coin + a * entropy_without(logits, ~chosen) + (1 - a) * entropy_without(logits, chosen)
    boosted = boosted_attention(logits, chosen, boost)
    torch.testing.assert_close(attention_entropy(boosted), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(boosted[chosen].sum(), a, rtol=1e-9, atol=1e-12)


@given(rows())
def test_the_condition_is_alpha_above_exp_of_minus_entropy(row: tuple[Tensor, int]) -> None:
    logits, j = row
    p = logits.softmax(dim=-1)
    margin = (p[j].log() + attention_entropy(p)).item()
    assume(abs(margin) > 1e-9)  # where rounding does not decide
    assert sharpens(logits, j).item() == (margin > 0)


@given(rows(), st.floats(0, 10), st.floats(0.01, 5))
def test_where_the_condition_holds_entropy_falls_and_goes_on_falling(
    row: tuple[Tensor, int], first: float, more: float
) -> None:
    logits, j = row
    assume(turning_boost(logits, j).item() < -1e-6)
    before, after = entropy_at(logits, j, torch.tensor([first, first + more]))
    assert after < before or before < 1e-12  # nothing is left to lose
    boosted = logits + first * torch.nn.functional.one_hot(torch.tensor(j), len(logits))
    assert turning_boost(boosted, j) < 0, "the condition persists"


@given(sets(), st.floats(0.02, 0.98), st.floats(0.02, 0.98))
def test_entropy_rises_up_to_the_turning_boost_and_falls_behind_it(
    row: tuple[Tensor, Tensor], share: float, other: float
) -> None:
    logits, chosen = row
    turn = turning_boost(logits, chosen).item()
    low, high = sorted((share, other))
    assume(high - low > 0.01)
    rising = entropy_at(logits, chosen, turn + 5 * torch.tensor([low - 1, high - 1], dtype=torch.float64))
    falling = entropy_at(logits, chosen, turn + 5 * torch.tensor([low, high], dtype=torch.float64))
    assert rising[0] < rising[1]
    assert falling[0] > falling[1]
    assert abs(slope_by_autograd(logits, chosen, at=turn)) < 1e-12


@given(rows())
def test_where_it_does_not_hold_a_small_boost_raises_entropy(row: tuple[Tensor, int]) -> None:
    """The theorem without its condition is false, as often as not."""
    logits, j = row
    turn = turning_boost(logits, j)
    assume(turn > 1e-2)
    before, after = entropy_at(logits, j, torch.stack([torch.zeros_like(turn), turn / 2]))
    assert after > before


def test_counterexample_of_the_theorem_without_its_condition() -> None:
    logits = torch.tensor([0.9, 0.1], dtype=torch.float64).log()
    before, after = entropy_at(logits, 1, torch.tensor([0.0, math.log(9)]))
    assert before.item() == pytest.approx(0.325, abs=5e-4)
    assert after.item() == pytest.approx(math.log(2))
    assert not sharpens(logits, 1)
    assert turning_boost(logits, 1).item() == pytest.approx(math.log(9)), "a coin is most uncertain when it is fair"


@given(rows(), st.floats(0, 30))
def test_boosting_the_top_key_never_raises_entropy(row: tuple[Tensor, int], boost: float) -> None:
    logits, _ = row
    before, after = entropy_at(logits, int(logits.argmax()), torch.tensor([0.0, boost], dtype=torch.float64))
    assert after <= before + 1e-14


@given(rows())
def test_a_large_boost_leaves_no_entropy(row: tuple[Tensor, int]) -> None:
    logits, j = row
    # 12 keys, at most 16 apart: all others together weigh less than 11 exp(16 - 80).
    assert entropy_at(logits, j, torch.tensor(80.0)) < 1e-24


@pytest.mark.parametrize(("n", "drop"), [(10, 0.129), (100, 0.018), (512, 0.004)])
def test_the_paper_s_boost_of_a_uniform_row_explains_little(n: int, drop: float) -> None:
    """1.26 nats is the paper's mean boost (figure 2); the 1.40 nats beside it are another measurement."""
    before, after = entropy_at(torch.zeros(n, dtype=torch.float64), 3, torch.tensor([0.0, 1.26]))
    assert before.item() == pytest.approx(math.log(n))
    assert (before - after).item() == pytest.approx(drop, abs=5e-4)


def test_rows_are_batched_and_masked_keys_are_no_keys() -> None:
    logits = torch.randn(3, 4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    masked = torch.cat([logits, torch.full((3, 4, 2), -torch.inf)], dim=-1)
    index = torch.arange(12).view(3, 4) % 7
    for f in (entropy_slope, turning_boost, sharpens):
        torch.testing.assert_close(f(masked, index), f(logits, index), rtol=1e-12, atol=1e-14)
        one = torch.stack([f(row, int(j)) for row, j in zip(logits.flatten(0, 1), index.flatten(), strict=True)])
        torch.testing.assert_close(f(logits, index), one.view(3, 4))
    assert (entropy_slope(masked, 8) == 0).all()
    assert (turning_boost(masked, 8) == torch.inf).all()
    assert not sharpens(masked, 8).any()
    alone = torch.tensor([0.3, -torch.inf])
    assert (entropy_slope(alone, 0), turning_boost(alone, 0)) == (0, -torch.inf)


def test_entropy_has_gradients_where_keys_are_masked() -> None:
    logits = torch.tensor([0.2, -0.4, -torch.inf], dtype=torch.float64, requires_grad=True)
    attention_entropy(logits.softmax(dim=-1)).backward()
    free = torch.tensor([0.2, -0.4], dtype=torch.float64, requires_grad=True)
    attention_entropy(free.softmax(dim=-1)).backward()
    assert logits.grad is not None
    assert free.grad is not None
    torch.testing.assert_close(logits.grad, torch.cat([free.grad, torch.zeros(1)]))
    assert attention_entropy(torch.tensor([1.0, 0.0])) == 0


def test_the_entropy_of_the_others_is_0_where_no_other_is_seen() -> None:
    hidden = -torch.inf
    logits = torch.tensor([[0.3, hidden, hidden], [0.3, 1.0, hidden], [0.3, 1.0, 1.0]], dtype=torch.float64)
    found = entropy_without(logits, 0)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, math.log(2)], dtype=torch.float64), rtol=0, atol=1e-15)
    assert entropy_without(torch.full((2,), 3.0), torch.tensor([True, True])) == 0
