"""Location attention over the prompt alone: against loops over rows and keys, in known cases, what it leaves alone."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model import KVCache
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.location import LocationAttention, LocationPlan
from lightning_metatok.model.attention.patterns import Prompt, SameDocument
from lightning_metatok.model.attention.sight import Sight
from lightning_metatok.model.recording import recorded
from tests.model.helpers import batch, check_equal, check_nothing_leaks, tiny
from tests.model.test_location import OPTIONS, SOME, acted

MARKS_T = torch.tensor([0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0]).bool()
DOCUMENTS_T = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 3])
"""A prompt of three tokens, none, one of a token, and one of no token."""


def over_prompt(**options: Any) -> dict[str, Any]:
    return {"mechanism": "location", "mechanism_options": {"over": "prompt", **options}}


def planned(module_positions: Any, extra_T: Tensor, document_T: Tensor) -> LocationPlan:
    facts = Facts.of(len(extra_T), extra_T[None], document_T[None])
    sight = Sight(Prompt() & SameDocument(), facts, slice(0, facts.n))
    return LocationPlan(module_positions, None, sight=sight, place_BK=facts.in_document_BK)


def naive(module: LocationAttention, x_TD: Tensor, step: str, past: str) -> Tensor:
    """Encoder by encoder, row by row, key by key: each document's prompt is a source of its own."""
    weights, rows = module.weights, module.place(x_TD)
    q, k, v = weights.split(x_TD)
    N, out = v.shape[1], []
    for document in DOCUMENTS_T.unique():
        of_document = [t for t in range(len(x_TD)) if DOCUMENTS_T[t] == document]
        marks = [t for t in of_document if MARKS_T[t]]
        source = [t for t in of_document if marks and t < marks[0]]
        where = [torch.zeros((), dtype=x_TD.dtype) for _ in range(N)]
        for t in of_document:
            if not source or t in source:
                out.append(torch.zeros_like(x_TD[t]))
                continue
            heads = []
            for n in range(N):
                centre = (where[n] + acted(step, rows[t, n])).clamp(0, len(source) - 1)
                width = rows[t, N + n].clamp(min=0) + 0.27
                gaussian = torch.stack([(-((j - centre) ** 2) / (2 * width**2)).exp() for j in range(len(source))])
                weight = place = gaussian / gaussian.sum()
                where[n] = centre if past == "centre" else sum(j * place[j] for j in range(len(source)))
                if module.mix:
                    scores = torch.stack([q[t, n] @ k[s, n] / math.sqrt(q.shape[-1]) for s in source])
                    gate = rows[t, 2 * N + n].sigmoid()
                    weight = gate * place + (1 - gate) * scores.softmax(dim=0)
                heads.append(sum(weight[j] * v[s, n] for j, s in enumerate(source)))
            out.append(weights.finish(torch.cat(heads)))
    return torch.stack(out)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_what_loops_over_sources_rows_and_keys_say(options: dict[str, object]) -> None:
    """With biases, which rows that see nothing do not get either."""
    model = tiny(**over_prompt(**options), position="none", bias=True).double()
    module = model.blocks[0].location_attention
    x_BTD = torch.randn(1, 16, 16, dtype=torch.float64, requires_grad=True)
    found = module(x_BTD, planned(model.positions, MARKS_T, DOCUMENTS_T))
    expected = naive(module, x_BTD[0], str(options["step"]), str(options.get("past", "centre")))[None]
    check_equal(found, expected, [x_BTD, *module.parameters()])


@pytest.mark.parametrize("past", ["centre", "mean"])
@torch.no_grad()
def test_answers_walk_the_prompt_from_its_beginning(past: str) -> None:
    """The mark takes the first step; steps of rows of the prompt move nothing, and no place is beyond its end."""
    model = tiny(**over_prompt(step="free", past=past, mix=False), position="none")
    module = model.blocks[0].location_attention
    module.place.weight.zero_()
    module.place.weight[:, 0] = torch.tensor([1.0, 1.0, 0.0, 0.0])
    module.place.bias.copy_(torch.tensor([0.0, 0.0, -1.0, -1.0]))
    extra_T = torch.arange(12) == 5
    plan = planned(model.positions, extra_T, torch.zeros(12, dtype=torch.long))
    for steps, expected in (
        ([3] * 5 + [0] + [1] * 6, [0, 1, 2, 3, 4, 4, 4]),
        ([-1] * 5 + [1] + [0] * 6, [1] * 7),
        ([0] * 5 + [4, -1, -1, 0, 9, -9, 2], [4, 3, 2, 2, 4, 0, 2]),
    ):
        x_BTD = torch.randn(1, 12, 16)
        x_BTD[..., 0] = torch.tensor(steps, dtype=torch.float)
        weights_BNTK, _ = module.weigh(x_BTD, plan)
        assert weights_BNTK[0, :, 5:].argmax(dim=-1).tolist() == [expected] * 2
        assert not weights_BNTK[:, :, :5].any()
        torch.testing.assert_close(weights_BNTK[:, :, 5:].sum(dim=-1), torch.ones(1, 2, 7))


@pytest.mark.parametrize("options", SOME, ids=str)
@pytest.mark.parametrize("position", ["rotary", "alibi"])
def test_under_a_causal_pattern_nothing_leaks(options: dict[str, object], position: str) -> None:
    check_nothing_leaks(tiny(**over_prompt(**options), position=position))


@pytest.mark.parametrize("options", SOME, ids=str)
def test_its_heads_look_at_the_prompt_and_leave_its_rows_alone(options: dict[str, object]) -> None:
    """By gradients of the branch alone: a row behind the prompt by it and by rows behind, which move the place."""
    model = tiny(**over_prompt(**options), position="none", bias=True)
    module, x_BTD = model.blocks[0].location_attention, torch.randn(1, 12, 16, requires_grad=True)
    out = module(x_BTD, planned(model.positions, torch.arange(12) % 5 == 4, torch.zeros(12, dtype=torch.long)))
    assert not out[:, :4].any()
    assert out[:, 4:].any(dim=-1).all()
    for t in range(4, 12):
        (gradient,) = torch.autograd.grad(out[0, t].square().sum(), x_BTD, retain_graph=True)
        assert gradient[0, :4].any(dim=-1).all()
        assert not gradient[0, t + 1 :].any()


@pytest.mark.parametrize("options", SOME, ids=str)
@torch.no_grad()
def test_step_by_step_equals_the_full_pass_under_a_causal_pattern_in_any_pieces(options: dict[str, object]) -> None:
    """Prompts, too: their rows ask for nothing, and rows behind find their keys."""
    model, (tokens_BT, extra_BT) = tiny(**over_prompt(**options)), batch()
    cache = KVCache(2, page=4)
    pieces = [
        model(tokens_BT[:, a:b], extra_BT[:, a:b], cache=cache)
        for a, b in ((0, 1), (1, 3), (3, 12), *((t, t + 1) for t in range(12, 21)))
    ]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens_BT, extra_BT), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pattern", ["causal", "prefix_lm"])
@pytest.mark.parametrize("options", SOME, ids=str)
@torch.no_grad()
def test_documents_stay_apart(options: dict[str, object], pattern: str) -> None:
    model, (tokens_BT, extra_BT) = tiny(**over_prompt(**options), pattern=pattern), batch()
    alone = [model(tokens_BT[:, a : a + 7], extra_BT[:, a : a + 7]) for a in (0, 7, 14)]
    together = model(tokens_BT, extra_BT, None, (torch.arange(21) // 7).expand(3, -1))
    torch.testing.assert_close(together, torch.cat(alone, dim=1), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_text_without_marks_has_no_such_heads() -> None:
    model, plain, (tokens_BT, _) = tiny(**over_prompt()), tiny(mechanism="none"), batch()
    plain.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(model(tokens_BT), plain(tokens_BT))


@torch.no_grad()
def test_it_can_be_looked_into() -> None:
    model, (tokens_BT, extra_BT) = tiny(**over_prompt()), batch()
    with recorded(model) as recording:
        model(tokens_BT, extra_BT)
    record = recording.layers[0]["location_attention"]
    behind_BT = Facts.of(21, extra_BT).behind_BK & ~extra_BT[:, :1]
    sums_BNT = record.probs_BNTT.sum(dim=-1)
    torch.testing.assert_close(sums_BNT, behind_BT[:, None].expand(-1, 2, -1).float(), atol=1e-5, rtol=1e-5)
    assert record.values_BTD is not None
    heads_BNTH = record.probs_BNTT @ record.values_BTD.unflatten(-1, (2, 8)).transpose(1, 2)
    update_BTD = model.blocks[0].location_attention.weights.finish(heads_BNTH.transpose(1, 2).flatten(-2))
    torch.testing.assert_close(update_BTD, record.update_BTD, atol=1e-5, rtol=1e-5)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("pattern", ["causal", "prefix_lm"])
def test_all_weights_learn(options: dict[str, object], pattern: str) -> None:
    model, (tokens_BT, extra_BT) = tiny(**over_prompt(**options), position="none", pattern=pattern), batch()
    torch.nn.functional.cross_entropy(model(tokens_BT, extra_BT).flatten(0, 1), tokens_BT.flatten()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_it_costs_scores_of_the_prompt_alone() -> None:
    """One mark in ten: the prompt of 40 tokens has 9, and 31 rows look at them."""
    alone, both = (tiny(mechanism="location", mechanism_options=o) for o in ({"over": "prompt"}, {}))
    saved = both.flops_per_token(40, 0.1) - alone.flops_per_token(40, 0.1)
    assert saved == pytest.approx(2 * 12 * 16 * (41 / 2 - 9 * 31 / 40))


def test_it_says_so_and_mistakes_are_named() -> None:
    mechanism = tiny(**over_prompt()).mechanism
    assert mechanism.says() == ["over prompt"]
    with pytest.raises(UserError, match=r"over='prompts': expected one of all, prompt; did you mean 'prompt'"):
        tiny(**over_prompt(over="prompts"))
    with pytest.raises(UserError, match=r"mechanism_options.over='prompt': expected all with model.norm='post'"):
        tiny(**over_prompt(), norm="post")
