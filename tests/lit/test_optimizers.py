"""Optimisers are chosen by name or class path; each parameter is updated once, hidden matrices by Muon."""

import copy
from typing import Any

import pytest
import torch
from schedulefree import AdamWScheduleFree
from torch import nn

from lightning_metatok.errors import UserError
from lightning_metatok.lit import optim, optimizers
from lightning_metatok.lit.optim import OptimizerConfig, build_optimizer, follow
from lightning_metatok.lit.optimizer_state import state_bytes
from lightning_metatok.model import MetaTransformer, TransformerConfig

MODEL = TransformerConfig(n_layers=2, n_heads=2, d_model=8, vocab_size=16, max_positions=8, position="learned")
CLASSES = ["adamw", "muon", "torch.optim.SGD", "torch.optim.NAdam", "schedulefree.AdamWScheduleFree"]


def model() -> MetaTransformer:
    return MetaTransformer(MODEL, seed=1)


def trained(net: nn.Module, optimizer: torch.optim.Optimizer, schedule: Any, steps: range) -> None:
    optimizers.train([optimizer])
    for step in steps:
        optimizer.zero_grad()
        for number, weight in enumerate(net.parameters()):
            generator = torch.Generator().manual_seed(1000 * step + number)
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()
        schedule.step()


def test_muon_takes_the_matrices_of_hidden_layers_alone() -> None:
    net = model()
    optimizer, _ = build_optimizer(net, OptimizerConfig(name="muon"))
    names = {id(weight): name for name, weight in net.named_parameters()}
    hidden, matrices, vectors = ([names[id(w)] for w in group["params"]] for group in optimizer.param_groups)
    assert {name.partition(".")[0] for name in hidden} == {"blocks"}
    assert set(matrices) == {"embedding.weight", "positions.table.weight"}
    assert all(net.get_parameter(name).dim() == 1 for name in vectors)
    assert sorted([*hidden, *matrices, *vectors]) == sorted(names.values())
    assert [type(part).__name__ for part in optimizer.parts] == ["Muon", "AdamW"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [*CLASSES, "torch.optim.Adagrad", "schedulefree.SGDScheduleFree"])
def test_what_is_kept_is_known_before(name: str) -> None:
    """The bytes that one step of the model allocates, found without its memory."""
    config = OptimizerConfig(name=name)
    net = model()
    optimizer, schedule = build_optimizer(net, config)
    trained(net, optimizer, schedule, range(1))
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    with torch.device("meta"):
        found = state_bytes(MetaTransformer(MODEL), config)
    assert found == sum(value.nbytes for value in kept if value.dim())
    hidden = sum(weight.numel() for weight in optimizers.groups_of(net, 0.1, apart=True)[0]["params"])
    n = net.n_parameters()
    known = {"adamw": 8 * n, "muon": 8 * n - 4 * hidden, "torch.optim.SGD": 0, "schedulefree.AdamWScheduleFree": 8 * n}
    assert found == known.get(name, found)


def test_what_an_optimiser_keeps_that_needs_numbers_is_not_known() -> None:
    with torch.device("meta"):
        assert state_bytes(MetaTransformer(MODEL), OptimizerConfig(name="torch.optim.Adafactor")) is None


def test_each_part_steps_as_it_does_alone() -> None:
    config = OptimizerConfig(name="muon", lr=1e-2, min_lr=1e-3, warmup_steps=0, schedule="constant")
    net = model()
    alone = copy.deepcopy(net)
    hidden, matrices, vectors = optimizers.groups_of(alone, 0.1, apart=True)
    muon = torch.optim.Muon(hidden["params"], lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([matrices, vectors], lr=1e-2, betas=(0.9, 0.95), fused=True)
    optimizer, schedule = build_optimizer(net, config)
    for weight, other in zip(net.parameters(), alone.parameters(), strict=True):
        weight.grad = torch.randn_like(weight)
        other.grad = weight.grad.clone()
    optimizer.step()
    schedule.step()
    muon.step()
    adamw.step()
    for weight, other in zip(net.parameters(), alone.parameters(), strict=True):
        assert torch.equal(weight, other)


@pytest.mark.parametrize("name", CLASSES)
def test_an_optimizer_that_is_loaded_goes_on_bit_by_bit(name: str) -> None:
    config = OptimizerConfig(name=name, lr=1e-2, min_lr=1e-3, warmup_steps=2, decay_steps=8)
    first, second = model(), model()
    one, schedule = build_optimizer(first, config)
    trained(first, one, schedule, range(4))
    optimizers.average([one])
    weights, state, where = copy.deepcopy((first.state_dict(), one.state_dict(), schedule.state_dict()))
    trained(first, one, schedule, range(4, 8))
    other, later = build_optimizer(second, config)
    second.load_state_dict(weights)
    other.load_state_dict(state)
    later.load_state_dict(where)
    trained(second, other, later, range(4, 8))
    for weight, same in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(weight, same)


@pytest.mark.parametrize("name", CLASSES)
def test_one_that_is_loaded_follows_new_settings(name: str) -> None:
    options = {"torch.optim.SGD": {"momentum": 0.5}, "muon": {"momentum": 0.5}}.get(name, {})
    old = OptimizerConfig(name=name, lr=1e-2, min_lr=1e-3, warmup_steps=1, weight_decay=0.1)
    new = OptimizerConfig(name=name, lr=5e-3, min_lr=1e-3, warmup_steps=1, weight_decay=0.3, beta2=0.9, options=options)
    net = model()
    optimizer, schedule = build_optimizer(net, old)
    trained(net, optimizer, schedule, range(3))
    follow(net, new, optimizer, schedule)
    fresh, _ = build_optimizer(net, new)
    for group, expected in zip(optimizer.param_groups, fresh.param_groups, strict=True):
        assert group["lr"] == optim.learning_rate(3, new)
        assert group["initial_lr"] == 5e-3
        for key in ("weight_decay", "betas", "momentum"):
            assert group.get(key) == expected.get(key)
    if name.startswith("schedulefree"):
        assert optimizer.param_groups[0]["k"] == 3  # what it counts is no setting
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.3, 0.0}


def test_schedule_free_weights_are_averaged_where_they_are_kept() -> None:
    net = nn.Linear(3, 3)
    config = OptimizerConfig(name="schedulefree.AdamWScheduleFree", lr=0.1, min_lr=0, warmup_steps=0)
    optimizer, schedule = build_optimizer(net, config)
    assert isinstance(optimizer, AdamWScheduleFree)
    trained(net, optimizer, schedule, range(3))
    at_gradients = net.weight.detach().clone()
    optimizers.average([optimizer])
    averaged = net.weight.detach().clone()
    z = optimizer.state[net.weight]["z"]
    torch.testing.assert_close(at_gradients, 0.1 * z + 0.9 * averaged)  # y = (1 - beta1) z + beta1 x
    assert not torch.equal(averaged, at_gradients)
    optimizers.average([optimizer])
    assert torch.equal(net.weight, averaged)


def test_a_constant_schedule_stays() -> None:
    config = OptimizerConfig(lr=1.0, min_lr=0.0, warmup_steps=3, decay_steps=10, schedule="constant")
    assert [optim.learning_rate(step, config) for step in (0, 2, 3, 9, 50)] == [0.25, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "moun"}, "model.optimizer.name='moun': expected one of adamw, muon; did you mean 'muon'?"),
        ({"name": "torch.optim.SDG"}, "model.optimizer.name=torch.optim.SDG: torch.optim has no SDG"),
        ({"name": "torch.nn.Linear"}, "expected a class that derives from torch.optim.optimizer.Optimizer"),
        ({"name": "torch.optim.Muon"}, "model.optimizer.name=torch.optim.Muon: Muon only supports 2D parameters"),
        ({"name": "torch.optim.LBFGS"}, "LBFGS doesn't support per-parameter options"),
        (
            {"name": "torch.optim.SGD", "options": {"momentm": 0.9}},
            "model.optimizer.options.momentm=0.9: torch.optim.SGD takes momentum, dampening",
        ),
        ({"name": "muon", "options": {"momentm": 0.9}}, "did you mean 'momentum'?"),
        ({"name": "muon", "options": {"adjust_lr_fn": "x"}}, "Adjust learning rate function x is not supported"),
        ({"name": "torch.optim.SGD", "options": {"momentum": -1}}, "Invalid momentum value: -1"),
        ({"name": "torch.optim.SGD", "options": {"lr": 1.0}}, "options.lr=1.0: expected it as model.optimizer.lr"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as raised:
        optimizers.check(values["name"], values.get("options", {}))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
