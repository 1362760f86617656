"""Queries, keys and values of extra tokens' own: against rows projected one by one, annealed away, and generating."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model import MetaTransformer, TransformerConfig, mechanisms
from lightning_metatok.model.memory import Memory
from lightning_metatok.model.recording import recorded
from lightning_metatok.model.unchanged import start_unchanged
from tests.model.helpers import batch, tiny
from tests.model.test_memory import step_by_step

HALF: dict[str, Any] = {"mechanism": "own_qkv", "mechanism_options": {"anneal": [0, 10]}}


def at(model: MetaTransformer, step: int) -> MetaTransformer:
    model.at_step(step)
    return model


def naive_attention(module: Any, x_TD: Tensor, extra_T: Tensor, m: float) -> Tensor:
    """Loops over rows and heads: each row by its own matrix, each query over its own keys. No positions."""
    D, N = x_TD.shape[1], module.weights.n_heads
    H = D // N
    base, own = module.weights.qkv.weight, module.own.weight
    rows = [(m * own + (1 - m) * base if extra else base) @ x for x, extra in zip(x_TD, extra_T, strict=True)]
    out = []
    for i, row in enumerate(rows):
        heads = []
        for n in range(N):
            q = row[n * H : (n + 1) * H]
            keys = torch.stack([other[D + n * H : D + (n + 1) * H] for other in rows[: i + 1]])
            values = torch.stack([other[2 * D + n * H : 2 * D + (n + 1) * H] for other in rows[: i + 1]])
            heads.append((keys @ q / math.sqrt(H)).softmax(dim=0) @ values)
        out.append(module.weights.out.weight @ torch.cat(heads))
    return torch.stack(out)


@pytest.mark.parametrize("step", [0, 3, 10])
def test_rows_are_projected_by_class_in_outputs_and_gradients(step: int) -> None:
    model = at(tiny(**HALF, position="none").double(), step)
    module, block = model.blocks[0].attention, model.blocks[0]
    x_BTD = torch.randn(1, 9, 16, dtype=torch.float64, requires_grad=True)
    extra_1T = torch.tensor([[0, 0, 1, 0, 1, 1, 0, 0, 1]]).bool()
    plans: list[Any] = []
    handle = module.register_forward_pre_hook(lambda _, args, kwargs: plans.append(kwargs["plan"]), with_kwargs=True)
    model(torch.arange(9)[None], extra_1T)
    handle.remove()
    weights = [x_BTD, module.weights.qkv.weight, module.own.weight, module.weights.out.weight]
    toward = torch.linspace(-1, 1, 144, dtype=torch.float64).view(9, 16)
    found = module(x_BTD, plan=plans[0])[0]
    expected = naive_attention(module, x_BTD[0], extra_1T[0], 1 - step / 10)
    torch.testing.assert_close(found, expected)
    for ours, right in zip(
        torch.autograd.grad((found * toward).sum(), weights),
        torch.autograd.grad((expected * toward).sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(ours, right)
    assert block.branches[0].name == "self_attention"


@torch.no_grad()
def test_text_alone_is_the_plain_model_and_annealed_weights_can_be_dropped() -> None:
    model, inputs = tiny(**HALF), batch()
    plain = tiny(mechanism="none")
    dropped = model.weights_of_mechanism()
    assert {name.split(".", 3)[3] for name in dropped} == {"own.weight", "share.m"}
    plain.load_state_dict({name: w for name, w in model.state_dict().items() if name not in dropped})
    assert torch.equal(at(model, 0)(inputs[0]), plain(inputs[0]))
    outs = {step: at(model, step)(*inputs) for step in (0, 5, 10, 99)}
    assert not torch.allclose(outs[0], plain(*inputs), atol=1e-2)
    assert not torch.allclose(outs[5], outs[0], atol=1e-2)
    assert torch.equal(outs[10], plain(*inputs))
    assert torch.equal(outs[99], outs[10])


@torch.no_grad()
def test_weights_that_are_not_annealed_are_those_of_the_first_step() -> None:
    annealed, inputs = tiny(**HALF), batch()
    whole = tiny(mechanism="own_qkv")
    whole.load_state_dict({name: w for name, w in annealed.state_dict().items() if not name.endswith(".share.m")})
    assert torch.equal(at(annealed, 0)(*inputs), whole(*inputs))
    assert not whole.mechanism.follows_steps


@pytest.mark.parametrize("first", [{}, {"mechanism_options": {"layers": [1]}}], ids=str)
@torch.no_grad()
def test_it_can_start_as_if_it_were_not_there(first: dict[str, Any]) -> None:
    model, inputs = tiny(**{**HALF, **first}), batch()
    start_unchanged(model)
    plain = tiny(mechanism="none")
    plain.load_state_dict({n: w for n, w in model.state_dict().items() if n not in model.weights_of_mechanism()})
    torch.testing.assert_close(model(*inputs), plain(*inputs), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kv_heads", [None, 1])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_ksa_whole_generates_what_training_saw(kv_heads: int | None, bias: bool) -> None:
    shape = {"pattern": "chunk_window", "pattern_options": {"back": 1, "wide_every": 2, "wide_back": 2}}
    model, inputs = at(tiny(**HALF, **shape, n_kv_heads=kv_heads, bias=bias), 4), batch()
    full = model(*inputs)
    torch.testing.assert_close(step_by_step(model, Memory(), inputs), full, atol=2e-5, rtol=1e-5)
    with recorded(model) as recording:
        assert torch.equal(model(*inputs), full)
    scores = recording.layers[0]["self_attention"].scores_BNTT
    model.at_step(9)
    with recorded(model) as later:
        model(*inputs)
    differs = (later.layers[0]["self_attention"].scores_BNTT != scores) & scores.isfinite()
    extra_BT = inputs[1]
    either = extra_BT[:, :, None] | extra_BT[:, None, :]
    assert not (differs & ~either[:, None]).any(), "pairs of ordinary tokens do not change"
    assert differs.any()


def test_it_costs_what_it_says() -> None:
    plain, own = (tiny(mechanism=name) for name in ("none", "own_qkv"))
    added = own.n_parameters() - plain.n_parameters()
    assert added == 2 * 3 * 16 * 16
    assert own.flops_per_token(64, 0.25) - plain.flops_per_token(64, 0.25) == pytest.approx(6 * 0.25 * added)
    some = mechanisms.build("own_qkv", layers=[1], anneal=[5, 9])
    assert some.says() == ["anneal 5 9", "layers 1"]
    assert mechanisms.build("own_qkv", layers=[]).idle


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"anneal": [9, 9]}, r"anneal=\[9, 9\]: expected two steps"),
        ({"anneal": [3]}, r"anneal=\[3\]: expected two steps"),
        ({"anneal": [-1, 9]}, r"anneal=\[-1, 9\]: expected two steps"),
        ({"layers": [2]}, r"layers=\[2\]: expected different block numbers from 0 to 1"),
    ],
)
def test_what_no_weights_of_their_own_are(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        TransformerConfig(2, 2, 16, 50, mechanism="own_qkv", mechanism_options=options)


# -- weights of meta-attention, mixed out towards those of self-attention


@pytest.mark.parametrize("fill", [None, -1e4])
@torch.no_grad()
def test_meta_attention_is_annealed_into_one_that_shares(fill: float | None) -> None:
    """At m = 0 it is `shared`, at m = 1 what has its own, and between them it is neither; float32 sums: 1e-5."""
    options = {} if fill is None else {"fill": fill}
    model, inputs = tiny(mechanism_options={**options, "anneal": [0, 10]}), batch()
    state = model.state_dict()
    own, shared = tiny(mechanism_options=options), tiny(mechanism_options={**options, "shared": True})
    own.load_state_dict({name: w for name, w in state.items() if not name.endswith(".share.m")})
    shared.load_state_dict({name: state[name] for name in shared.state_dict()})
    outs = {step: at(model, step)(*inputs) for step in (0, 5, 10)}
    torch.testing.assert_close(outs[0], own(*inputs), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(outs[10], shared(*inputs), atol=1e-5, rtol=1e-5)
    assert not any(torch.allclose(outs[5], outs[step], atol=1e-2) for step in (0, 10))
    steps = step_by_step(at(model, 5), Memory(), inputs)
    torch.testing.assert_close(steps, outs[5], atol=5e-3 if fill else 2e-5, rtol=1e-4)


def test_meta_attention_that_shares_has_nothing_to_anneal() -> None:
    with pytest.raises(UserError, match=r"anneal=\[0, 5\]: expected no value with shared=True"):
        TransformerConfig(2, 2, 16, 50, mechanism_options={"anneal": [0, 5], "shared": True})
    assert mechanisms.build("meta", anneal=[0, 5]).says() == ["anneal 0 5"]
