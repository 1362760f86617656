"""One token out of logits, against a naive reading of each option."""

from typing import Any

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.model.sampling import Sampling

LOGITS = torch.tensor([[3.0, 2.0, 1.0, -1.0, -torch.inf]])


def frequencies(options: dict[str, Any], n: int = 4000, present: list[int] | None = None) -> torch.Tensor:
    sampling = Sampling(seed=1, **options)
    u_1B = sampling.draws(1, range(n))
    mask = None if present is None else torch.zeros(n, 5, dtype=torch.bool)
    if mask is not None:
        mask[:, present] = True
    ids = sampling.choose(LOGITS.expand(n, -1), None if u_1B is None else u_1B[0], mask)
    return torch.bincount(ids, minlength=5) / n


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [3.0, 2.0, 1.0, -1.0]),
        ({"temperature": 2.0}, [1.5, 1.0, 0.5, -0.5]),
        ({"min_p": 0.3}, [3.0, 2.0]),
        ({"min_p": 0.1}, [3.0, 2.0, 1.0]),
        ({"top_k": 2, "temperature": 2.0}, [1.5, 1.0]),
        ({"top_p": 0.7}, [3.0, 2.0]),
    ],
    ids=str,
)
def test_ids_come_as_often_as_the_options_say(options: dict[str, Any], expected: list[float]) -> None:
    wanted = torch.zeros(5)
    wanted[: len(expected)] = torch.tensor(expected).softmax(-1)
    # Four standard deviations of a share of 4,000.
    torch.testing.assert_close(frequencies(options), wanted, atol=0.032, rtol=0)
    assert not frequencies(options)[len(expected) :].any()


def test_a_repetition_penalty_lowers_what_is_there_and_nothing_else() -> None:
    wanted = torch.tensor([1.5, 2.0, 1.0, -2.0, -torch.inf]).softmax(-1)
    torch.testing.assert_close(frequencies({"repetition_penalty": 2.0}, present=[0, 3]), wanted, atol=0.032, rtol=0)
    assert frequencies({"repetition_penalty": 2.0, "temperature": 0}, n=1, present=[0])[1] == 1


def test_a_sample_has_its_own_numbers_whatever_stands_beside_it() -> None:
    sampling = Sampling(seed=5)
    many, one, longer = (sampling.draws(*args) for args in ((3, range(4)), (3, [2]), (9, [2])))
    assert many is not None
    assert one is not None
    assert longer is not None
    assert torch.equal(many[:, 2:3], one)
    assert torch.equal(longer[:3], one)
    assert len(set(many.flatten().tolist())) == 12


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_give_ids_that_may_be_drawn(u: float) -> None:
    forbidden_first = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]])
    assert int(Sampling().choose(forbidden_first, torch.tensor([u], dtype=torch.float64))) == 1 + (u > 0)


@pytest.mark.parametrize("option", [{"min_p": 1.5}, {"min_p": float("nan")}, {"repetition_penalty": 0.0}], ids=str)
def test_a_value_out_of_range_is_refused(option: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(option))):
        Sampling(**option)
