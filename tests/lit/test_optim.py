"""The schedule is nanoGPT's, and only matrices are decayed."""

import pytest
import torch
from torch import nn

from lightning_metatok.errors import UserError
from lightning_metatok.lit.optim import OptimizerConfig, build_optimizer, learning_rate

CONFIG = OptimizerConfig(lr=6e-4, min_lr=6e-5, warmup_steps=2000, decay_steps=600_000)


def test_schedule_warms_up_linearly_and_reaches_both_ends() -> None:
    assert learning_rate(0, CONFIG) == pytest.approx(6e-4 / 2001)
    assert learning_rate(999, CONFIG) == pytest.approx(6e-4 * 1000 / 2001)
    assert learning_rate(2000, CONFIG) == pytest.approx(6e-4)
    assert learning_rate(600_000, CONFIG) == pytest.approx(6e-5)
    assert learning_rate(10_000_000, CONFIG) == pytest.approx(6e-5)


def test_schedule_of_the_paper_is_not_annealed_at_its_last_step() -> None:
    """200k steps of a cosine over 600k end at 4.67e-4 (reference, section 2)."""
    assert learning_rate(200_000, CONFIG) == pytest.approx(4.67e-4, rel=2e-3)


def test_a_run_shorter_than_its_warmup_only_warms_up() -> None:
    config = OptimizerConfig(lr=1.0, min_lr=0.1, warmup_steps=9, decay_steps=5)
    assert [learning_rate(step, config) for step in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert learning_rate(8, config) == pytest.approx(0.9)


def test_only_matrices_are_decayed_and_every_parameter_is_optimised_once() -> None:
    module = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    optimizer, _ = build_optimizer(module, OptimizerConfig(weight_decay=0.3))
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert {p.dim() for p in decayed["params"]} == {2}
    assert {p.dim() for p in spared["params"]} == {1}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(module.parameters()))


def test_scheduler_sets_the_learning_rate_of_each_step() -> None:
    config = OptimizerConfig(lr=1e-2, min_lr=1e-3, warmup_steps=3, decay_steps=8)
    optimizer, schedule = build_optimizer(nn.Linear(2, 2), config)
    seen = []
    for _ in range(10):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert seen == pytest.approx([learning_rate(step, config) for step in range(10)])


def test_fused_step_equals_adamw_by_hand() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2, bias=False)
    start = layer.weight.detach().clone()
    config = OptimizerConfig(lr=0.1, min_lr=0.1, warmup_steps=0, decay_steps=1, weight_decay=0.5)
    optimizer, _ = build_optimizer(layer, config)
    gradient = torch.randn_like(start)
    layer.weight.grad = gradient.clone()
    optimizer.step()
    # First step: both bias-corrected moments are the gradient and its square, so the step is its sign.
    expected = start * (1 - 0.1 * 0.5) - 0.1 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(layer.weight.detach(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"lr": -1.0}, "model.optimizer.lr"),
        ({"lr": 1e-4, "min_lr": 1e-3}, "model.optimizer.min_lr"),
        ({"decay_steps": 0}, "model.optimizer.decay_steps"),
        ({"warmup_steps": -1}, "model.optimizer.warmup_steps"),
    ],
)
def test_a_schedule_that_cannot_be_followed_is_refused(values: dict, key: str) -> None:
    with pytest.raises(UserError, match=key):
        OptimizerConfig(**values)


def test_wsd_warms_up_stays_and_falls_in_a_straight_line() -> None:
    config = OptimizerConfig(lr=1.0, min_lr=0.1, warmup_steps=9, decay_steps=100, schedule="wsd", cooldown=0.3)
    rates = [learning_rate(step, config) for step in range(120)]
    assert rates[:9] == pytest.approx([(step + 1) / 10 for step in range(9)])
    assert rates[9:71] == pytest.approx([1.0] * 62)
    assert rates[70:101] == pytest.approx([1 - 0.9 * step / 30 for step in range(31)])
    assert rates[100:] == pytest.approx([0.1] * 20)


def test_wsd_may_fall_right_behind_the_warmup() -> None:
    config = OptimizerConfig(lr=1.0, min_lr=0.0, warmup_steps=10, decay_steps=20, schedule="wsd", cooldown=1.0)
    assert [learning_rate(step, config) for step in (10, 15, 20)] == pytest.approx([1.0, 0.5, 0.0])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"schedule": "wds"},
            "model.optimizer.schedule='wds': expected one of cosine, wsd, constant; did you mean 'wsd'?",
        ),
        ({"cooldown": 0.0}, "model.optimizer.cooldown=0.0: expected a share above 0, up to 1"),
        ({"cooldown": 1.5}, "model.optimizer.cooldown=1.5"),
    ],
)
def test_schedules_that_cannot_be_are_named(options: dict[str, object], expected: str) -> None:
    with pytest.raises(UserError) as raised:
        OptimizerConfig(**options)  # type: ignore[arg-type]
    assert expected in str(raised.value)
