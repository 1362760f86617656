"""Location attention against loops over rows, keys and heads, in known cases, and what makes it causal."""

import math

import pytest
import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model import KVCache, TransformerConfig
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.location import LocationAttention, LocationPlan, moved
from lightning_metatok.model.attention.patterns import Causal, SameDocument
from lightning_metatok.model.attention.sight import Sight
from lightning_metatok.model.branch import Place
from lightning_metatok.model.interventions import Intervention, Patch, intervened
from lightning_metatok.model.recording import recorded
from tests.model.helpers import batch, check_equal, check_nothing_leaks, tiny

LOCATION = {"mechanism": "location", "position": "none"}
OPTIONS = [
    {"step": "one_step"},
    {"step": "one_step", "past": "mean"},
    {"step": "monotonic", "mix": False},
    {"step": "monotonic", "past": "mean"},
    {"step": "stair"},
    {"step": "free"},
    {"step": "free", "past": "mean", "mix": False},
]
SOME = [{}, {"step": "free", "past": "mean", "mix": False}]
DOCUMENTS_T = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1])


def acted(step: str, x: float | Tensor) -> Tensor:
    x = torch.as_tensor(x)
    if step == "one_step":
        return 1 / (1 + (-5 * x).exp())
    if step == "monotonic":
        return x if x > 0 else 0 * x
    whole = math.floor(x.item())
    return whole + 1 / (1 + (-20 * (x - whole - 0.5)).exp()) if step == "stair" else x


def naive(module: LocationAttention, x_BTD: Tensor, document_T: Tensor, step: str, past: str) -> Tensor:
    """Row by row, key by key."""
    weights = module.weights
    q, k, v = weights.split(x_BTD)
    rows = module.place(x_BTD)
    B, T, N = v.shape[:3]
    out = []
    for b in range(B):
        where: dict[int, Tensor] = {}
        for t in range(T):
            own = [s for s in range(t + 1) if document_T[s] == document_T[t]]
            heads = []
            for n in range(N):
                before = where[n] if len(own) > 1 else torch.zeros((), dtype=x_BTD.dtype)
                centre = (before + acted(step, rows[b, t, n])).clamp(0, len(own) - 1)
                width = rows[b, t, N + n].clamp(min=0) + 0.27
                gaussian = torch.stack([(-((j - centre) ** 2) / (2 * width**2)).exp() for j in range(len(own))])
                place = gaussian / gaussian.sum()
                where[n] = centre if past == "centre" else sum(j * place[j] for j in range(len(own)))
                weight = place
                if module.mix:
                    scores = torch.stack([q[b, t, n] @ k[b, s, n] / math.sqrt(q.shape[-1]) for s in own])
                    gate = rows[b, t, 2 * N + n].sigmoid()
                    weight = gate * place + (1 - gate) * scores.softmax(dim=0)
                heads.append(sum(weight[i] * v[b, s, n] for i, s in enumerate(own)))
            out.append(torch.cat(heads))
    return weights.finish(torch.stack(out).view(B, T, -1))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_what_loops_over_rows_and_keys_say(options: dict[str, object]) -> None:
    model = tiny(**LOCATION, mechanism_options=options).double()
    module = model.blocks[0].location_attention
    x_BTD = torch.randn(1, 9, 16, dtype=torch.float64, requires_grad=True)
    facts = Facts.of(9, None, DOCUMENTS_T[None])
    sight = Sight(Causal() & SameDocument(), facts, slice(0, 9))
    plan = LocationPlan(model.positions, None, sight=sight, place_BK=facts.in_document_BK)
    found = module(x_BTD, plan)
    expected = naive(module, x_BTD, DOCUMENTS_T, str(options["step"]), str(options.get("past", "centre")))
    check_equal(found, expected, [x_BTD, *module.parameters()])


def test_centres_are_found_at_once_as_one_after_the_other() -> None:
    step_BNT = torch.randn(2, 3, 77, dtype=torch.float64) * 3
    place_B1T = torch.cat((torch.arange(40.0), torch.arange(37.0))).double().expand(2, 1, -1)
    centre_BN, centres = torch.full((2, 3), 5.0, dtype=torch.float64), []
    for t in range(77):
        centre_BN = (centre_BN + step_BNT[..., t]).clamp(min=0).minimum(place_B1T[..., t])
        centres.append(centre_BN)
    found = moved(step_BNT, place_B1T, torch.full((2, 3, 1), 5.0, dtype=torch.float64))
    torch.testing.assert_close(found, torch.stack(centres, dim=-1))
    assert not found[..., 40].any()  # a document begins


@pytest.mark.parametrize("options", SOME, ids=str)
@pytest.mark.parametrize("position", ["rotary", "alibi"])
def test_nothing_leaks_from_later_tokens(options: dict[str, object], position: str) -> None:
    check_nothing_leaks(tiny(mechanism="location", mechanism_options=options, position=position))


@pytest.mark.parametrize("options", SOME, ids=str)
@pytest.mark.parametrize("position", ["rotary", "alibi"])
@torch.no_grad()
def test_step_by_step_equals_the_full_pass(options: dict[str, object], position: str) -> None:
    model, (tokens_BT, extra_BT) = tiny(mechanism="location", mechanism_options=options, position=position), batch()
    cache = KVCache(2, padding_B=None, page=4)
    pieces = [
        model(tokens_BT[:, a:b], extra_BT[:, a:b], cache=cache)
        for a, b in ((0, 9), (9, 12), *((t, t + 1) for t in range(12, 21)))
    ]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens_BT, extra_BT), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", SOME, ids=str)
@torch.no_grad()
def test_padding_before_a_prompt_changes_nothing(options: dict[str, object]) -> None:
    model, (tokens_BT, _) = tiny(mechanism="location", mechanism_options=options), batch(n=1)
    cache = KVCache(2, padding_B=torch.tensor([4]))
    padded_BT = torch.cat((torch.zeros(1, 4, dtype=torch.long), tokens_BT), dim=1)
    ids_BT = (torch.arange(25)[None] - 4).clamp(min=0)
    pieces = [model(padded_BT[:, a:b], None, ids_BT[:, a:b], cache=cache) for a, b in ((0, 20), (20, 21), (21, 25))]
    torch.testing.assert_close(torch.cat(pieces, dim=1)[:, 4:], model(tokens_BT), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", SOME, ids=str)
@torch.no_grad()
def test_documents_stay_apart(options: dict[str, object]) -> None:
    model, (tokens_BT, extra_BT) = tiny(mechanism="location", mechanism_options=options), batch()
    alone = [model(tokens_BT[:, a : a + 7], extra_BT[:, a : a + 7]) for a in (0, 7, 14)]
    together = model(tokens_BT, extra_BT, None, (torch.arange(21) // 7).expand(3, -1))
    torch.testing.assert_close(together, torch.cat(alone, dim=1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("past", ["centre", "mean"])
@torch.no_grad()
def test_steps_of_one_copy_and_steps_of_none_stay(past: str) -> None:
    """A step of 1 a row points at the row itself, of 0 at the first of the document, of 1 from row 5 on 5 behind."""
    model = tiny(**LOCATION, mechanism_options={"step": "free", "past": past, "mix": False})
    module = model.blocks[0].location_attention
    module.place.weight.zero_()
    module.place.weight[:, 0] = torch.tensor([1.0, 1.0, 0.0, 0.0])
    module.place.bias.copy_(torch.tensor([0.0, 0.0, -1.0, -1.0]))
    facts = Facts.of(12)
    plan = LocationPlan(model.positions, None, place_BK=facts.in_document_BK)
    for steps, expected in (
        ([1] * 12, list(range(12))),
        ([0] * 12, [0] * 12),
        ([0] * 6 + [1] * 6, [0] * 6 + [1, 2, 3, 4, 5, 6]),
        ([1] * 6 + [-1] * 6, [0, 1, 2, 3, 4, 5, 4, 3, 2, 1, 0, 0]),
    ):
        x_BTD = torch.randn(1, 12, 16)
        x_BTD[..., 0] = torch.tensor(steps, dtype=torch.float)
        weights_BNTK, _ = module.weigh(x_BTD, plan)
        assert weights_BNTK[0].argmax(dim=-1).tolist() == [expected] * 2
        torch.testing.assert_close(weights_BNTK.sum(dim=-1), torch.ones(1, 2, 12))
        assert weights_BNTK.amax(dim=-1).min() > 0.98


@torch.no_grad()
def test_a_gate_that_is_shut_leaves_an_attention_of_content() -> None:
    model, twin, (tokens_BT, extra_BT) = tiny(mechanism="location"), tiny(mechanism="matched"), batch()
    names = {"location_attention": "meta_attention", "norm_location": "norm_meta"}
    for block, of_twin in zip(model.blocks, twin.blocks, strict=True):
        block.location_attention.place.bias[4:] = -1e4
        for ours, theirs in names.items():
            getattr(of_twin, theirs).load_state_dict(getattr(block, ours).state_dict(), strict=False)
        for part in ("attention", "norm_attention", "mlp", "norm_mlp"):
            getattr(of_twin, part).load_state_dict(getattr(block, part).state_dict())
    for part in ("embedding", "norm"):
        getattr(twin, part).load_state_dict(getattr(model, part).state_dict())
    torch.testing.assert_close(model(tokens_BT, extra_BT), twin(tokens_BT, extra_BT), atol=1e-4, rtol=1e-4)
    assert model.n_parameters() - twin.n_parameters() == 2 * 6 * 17


@pytest.mark.parametrize("options", [{}, {"mix": False}], ids=str)
@torch.no_grad()
def test_it_can_be_looked_into_and_its_values_patched(options: dict[str, object]) -> None:
    model, (tokens_BT, extra_BT) = tiny(mechanism="location", mechanism_options=options), batch()
    with recorded(model) as recording:
        out = model(tokens_BT, extra_BT)
    record = recording.layers[0]["location_attention"]
    module = model.blocks[0].location_attention
    assert record.values_BTD is not None
    heads_BNTH = record.probs_BNTT @ record.values_BTD.unflatten(-1, (2, 8)).transpose(1, 2)
    update_BTD = module.weights.finish(heads_BNTH.transpose(1, 2).flatten(-2))
    torch.testing.assert_close(update_BTD, record.update_BTD, atol=1e-5, rtol=1e-5)
    values = Place("location_attention", values=True)
    for states_BTD, same in ((record.values_BTD, True), (torch.zeros_like(record.values_BTD), False)):
        patch = Patch(torch.ones_like(extra_BT), states_BTD, values)
        with intervened(model, Intervention(patches={0: patch})):
            assert torch.allclose(model(tokens_BT, extra_BT), out, atol=1e-5) is same


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_all_weights_learn(options: dict[str, object]) -> None:
    model, (tokens_BT, extra_BT) = tiny(**LOCATION, mechanism_options=options), batch()
    torch.nn.functional.cross_entropy(model(tokens_BT, extra_BT).flatten(0, 1), tokens_BT.flatten()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@torch.no_grad()
def test_it_stands_in_the_blocks_that_are_named() -> None:
    model = tiny(mechanism="location", mechanism_options={"layers": [1]})
    assert [len(block.branches) for block in model.blocks] == [2, 3]
    plain = tiny(mechanism="none")
    plain.load_state_dict(model.state_dict(), strict=False)
    model.blocks[1].location_attention.weights.out.weight.zero_()
    tokens_BT, extra_BT = batch()
    torch.testing.assert_close(model(tokens_BT, extra_BT), plain(tokens_BT, extra_BT))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mechanism_options": {"step": "onestep"}}, "step='onestep': expected one of one_step, .*mean 'one_step'"),
        ({"mechanism_options": {"mix": 1}}, "mechanism_options.mix=1: expected true or false"),
        ({"mechanism_options": {"layers": [2]}}, "layers=.2.: expected different block numbers from 0 to 1"),
        ({"denominator": "sink"}, "model.denominator='sink': expected 'sum' with model.mechanism='location'"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], message: str) -> None:
    shape = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 9, "mechanism": "location"}
    with pytest.raises(UserError, match=message):
        TransformerConfig(**{**shape, **change})
