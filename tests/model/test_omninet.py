"""OmniNet against loops over states of tokens and blocks, what makes it causal, and its encoder form."""

import math

import pytest
import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model import KVCache, TransformerConfig
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import Bidirectional
from lightning_metatok.model.attention.plan import AttentionPlan
from lightning_metatok.model.attention.sight import Sight
from lightning_metatok.model.mechanisms.omninet import OmniAttention, position_major
from tests.model.helpers import batch, check_equal, check_every_output_depends_on_every_input, check_nothing_leaks, tiny

OMNI = {"mechanism": "omninet", "position": "none"}
OPTIONS = [{}, {"query": "top"}, {"pool": "last"}, {"every": 1}, {"query": "top", "pool": "last"}]


def test_states_are_restacked_as_in_the_official_code() -> None:
    """[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12] -> [1, 5, 9, 2, 6, 10, ...]"""
    layers = [torch.arange(first, first + 4.0).view(1, 1, 4, 1) for first in (1, 5, 9)]
    assert position_major(layers).flatten().tolist() == [1, 5, 9, 2, 6, 10, 3, 7, 11, 4, 8, 12]


def naive(module: OmniAttention, states: list[Tensor], *, causal: bool = True) -> Tensor:
    """Token by token, block by block, head by head."""
    weights, P = module.projections, len(states)
    B, T, D = states[0].shape
    N = weights.n_heads
    H = D // N
    parts = [weights.split(module.norm(x)) for x in states]
    out = torch.zeros(B, T, D, dtype=states[0].dtype)
    for b in range(B):
        for t in range(T):
            answers = []
            for asks in range(P) if module.query == "all" else [P - 1]:
                heads = []
                for n in range(N):
                    q = parts[asks][0][b, t, n]
                    keys = [(s, p) for s in range(t + 1 if causal else T) for p in range(P)]
                    scores = torch.stack([q @ parts[p][1][b, s, n] / math.sqrt(H) for s, p in keys])
                    values = torch.stack([parts[p][2][b, s, n] for s, p in keys])
                    heads.append(scores.softmax(dim=0) @ values)
                answers.append(weights.finish(torch.cat(heads)))
            together = torch.stack(answers)
            out[b, t] = together.amax(dim=0) if module.pool == "max" else together[-1]
    return out


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_the_sum_over_all_states(options: dict[str, str], causal: bool) -> None:
    model = tiny(**OMNI, mechanism_options=options).double()
    module = model.between.partitions[0]
    P = options.get("every", 2)
    states = [torch.randn(2, 5, 16, dtype=torch.float64, requires_grad=True) for _ in range(P)]
    sight = None if causal else Sight(Bidirectional(), Facts.of(5), slice(0, 5))
    plan = AttentionPlan(model.positions, None, None, sight)
    found, expected = module(states, plan, None), naive(module, states, causal=causal)
    check_equal(found, expected, [*states, *module.parameters()])


@pytest.mark.parametrize("position", ["none", "rotary", "learned"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_nothing_leaks_from_later_tokens(options: dict[str, str], position: str) -> None:
    check_nothing_leaks(tiny(mechanism="omninet", mechanism_options=options, position=position))


@pytest.mark.parametrize("position", ["none", "rotary", "learned"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_in_an_encoder_every_output_depends_on_every_input(options: dict[str, str], position: str) -> None:
    model = tiny(mechanism="omninet", mechanism_options=options, position=position, pattern="bidirectional")
    assert [rules[1:] for rules in model.rules()][-1][0].mean_keys(21, 0.0) == 21
    check_every_output_depends_on_every_input(model)


@pytest.mark.parametrize("position", ["none", "rotary", "learned"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@torch.no_grad()
def test_step_by_step_equals_the_full_pass(options: dict[str, str], position: str) -> None:
    model, (tokens_BT, extra_BT) = tiny(mechanism="omninet", mechanism_options=options, position=position), batch()
    cache = KVCache(2)
    pieces = [
        model(tokens_BT[:, a:b], extra_BT[:, a:b], cache=cache)
        for a, b in ((0, 9), *((t, t + 1) for t in range(9, 21)))
    ]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens_BT, extra_BT), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pattern", ["causal", "bidirectional"])
@torch.no_grad()
def test_documents_stay_apart(pattern: str) -> None:
    model, (tokens_BT, extra_BT) = tiny(**OMNI, pattern=pattern), batch()
    alone = [model(tokens_BT[:, a : a + 7], extra_BT[:, a : a + 7]) for a in (0, 7, 14)]
    together = model(tokens_BT, extra_BT, None, (torch.arange(21) // 7).expand(3, -1))
    torch.testing.assert_close(together, torch.cat(alone, dim=1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_values_of_zero_change_nothing() -> None:
    model, plain, (tokens_BT, extra_BT) = tiny(**OMNI), tiny(mechanism="none", position="none"), batch()
    plain.load_state_dict(model.state_dict(), strict=False)
    assert not torch.allclose(model(tokens_BT, extra_BT), plain(tokens_BT, extra_BT))
    for partition in model.between.partitions:
        partition.projections.qkv.weight[-16:] = 0
    torch.testing.assert_close(model(tokens_BT, extra_BT), plain(tokens_BT, extra_BT))


def test_blocks_that_are_left_over_have_none_and_all_weights_learn() -> None:
    model, (tokens_BT, extra_BT) = tiny(**OMNI, n_layers=3), batch()
    assert len(model.between.partitions) == len(tiny(**OMNI, mechanism_options={"every": 9}).between.partitions) == 1
    torch.nn.functional.cross_entropy(model(tokens_BT, extra_BT).flatten(0, 1), tokens_BT.flatten()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_mistakes_are_named() -> None:
    shape = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 9, "mechanism": "omninet"}
    with pytest.raises(UserError, match=r"model.mechanism_options.every=0: expected 1 or more"):
        TransformerConfig(**shape, mechanism_options={"every": 0})
    with pytest.raises(UserError, match=r"model.position='alibi': expected one that does not transform scores"):
        TransformerConfig(**shape, position="alibi")
