"""OmniNet's attention by kernels and of low rank: against loops, what makes kernels causal, encoders, and mistakes."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model import KVCache, TransformerConfig
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import Bidirectional, Causal, SameDocument
from lightning_metatok.model.attention.plan import AttentionPlan
from lightning_metatok.model.attention.sight import Sight
from lightning_metatok.model.generate import generate
from lightning_metatok.model.mechanisms import cheaper
from lightning_metatok.model.mechanisms.cheaper import Kernel
from lightning_metatok.model.mechanisms.omninet import OmniAttention
from tests.model.helpers import batch, check_equal, check_every_output_depends_on_every_input, check_nothing_leaks, tiny
from tests.model.test_omninet import naive as dense

KERNEL: dict[str, Any] = {"attend": "kernel", "rank": 6}
LOW: dict[str, Any] = {"attend": "low_rank", "rank": 3}
OTHERS: list[dict[str, Any]] = [{}, {"query": "top"}, {"pool": "last"}, {"every": 1}]
DOCUMENTS = (0, 0, 0, 1, 2, 2)


def omni(options: dict[str, Any], **changes: Any) -> Any:
    """A tiny model with it; its features are as they were drawn, whatever `tiny` does to weights."""
    return tiny(mechanism="omninet", mechanism_options=options, **{"position": "none", **changes})


def phi(w_RH: Tensor, x_H: Tensor) -> Tensor:
    """Features, one by one."""
    x_H = x_H / len(x_H) ** 0.25
    return torch.stack([(w_H @ x_H - x_H @ x_H / 2).exp() for w_H in w_RH]) / math.sqrt(len(w_RH))


def naive(module: OmniAttention, states: list[Tensor], documents: tuple[int, ...], *, causal: bool) -> Tensor:
    """Token by token, block by block, head by head."""
    weights, inner, P = module.projections, module.inner, len(states)
    B, T, D = states[0].shape
    H = D // weights.n_heads
    parts = [weights.split(module.norm(x)) for x in states]
    out = torch.zeros(B, T, D, dtype=states[0].dtype)
    for b in range(B):
        for t in range(T):
            answers = []
            for asks in range(P) if module.query == "all" else [P - 1]:
                heads = []
                for n in range(weights.n_heads):
                    q = parts[asks][0][b, t, n]
                    places = [s for s in range(T) if documents[s] == documents[t] and (s <= t or not causal)]
                    keys = [parts[p][1][b, s, n] for s in places for p in range(P)]
                    values = [parts[p][2][b, s, n] for s in places for p in range(P)]
                    if isinstance(inner, Kernel):
                        shares = torch.stack([phi(inner.w_RH, q) @ phi(inner.w_RH, k) for k in keys])
                        heads.append(sum(s * v for s, v in zip(shares / shares.sum(), values, strict=True)))
                        continue
                    mixed = []
                    for weight_Rn, rows in ((inner.keys_Rn, keys), (inner.values_Rn, values)):
                        mixed.append([sum(w * row for w, row in zip(w_n, rows, strict=False)) for w_n in weight_Rn])
                    scores = torch.stack([q @ k / math.sqrt(H) for k in mixed[0]])
                    heads.append(scores.softmax(dim=0) @ torch.stack(mixed[1]))
                answers.append(weights.finish(torch.cat(heads)))
            together = torch.stack(answers)
            out[b, t] = together.amax(dim=0) if module.pool == "max" else together[-1]
    return out


CASES = [
    *((KERNEL, others, True, True, 2) for others in OTHERS),
    *((KERNEL, {"query": "top"}, causal, packed, 128) for causal in (True, False) for packed in (True, False)),
    *((LOW, others, False, False, 128) for others in OTHERS),
]


@pytest.mark.parametrize(("attend", "others", "causal", "packed", "block"), CASES, ids=str)
def test_it_is_the_sum_over_all_states(
    attend: dict[str, Any],
    others: dict[str, Any],
    causal: bool,
    packed: bool,
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cheaper, "BLOCK", block)
    model = omni({**attend, **others}, pattern="causal" if causal else "bidirectional").double()
    module, T = model.between.partitions[0], len(DOCUMENTS)
    states = [torch.randn(1, T, 16, dtype=torch.float64, requires_grad=True) for _ in range(others.get("every", 2))]
    documents = DOCUMENTS if packed else (0,) * T
    rule, ids_1T = Causal() if causal else Bidirectional(), torch.tensor([documents]) if packed else None
    rule = rule & SameDocument() if packed else rule
    sight = Sight(rule, Facts.of(T, None, ids_1T), slice(0, T)) if packed or not causal else None
    found = module(states, AttentionPlan(model.positions, None, None, sight), None)
    expected = naive(module, states, documents, causal=causal)
    check_equal(found, expected, [*states, *module.parameters()])


@torch.no_grad()
def test_many_features_are_dense_attention_and_stand_at_right_angles() -> None:
    model = omni({"attend": "kernel", "rank": 20_000}).double()
    module = model.between.partitions[0]
    states = [0.5 * torch.randn(1, 5, 16, dtype=torch.float64) for _ in range(2)]
    found = module(states, AttentionPlan(model.positions, None, None, None), None)
    torch.testing.assert_close(found, dense(module, states), atol=0.02, rtol=0.05)
    w_HH = module.inner.w_RH[:8]
    apart = w_HH @ w_HH.mT / w_HH.norm(dim=1) / w_HH.norm(dim=1)[:, None]
    torch.testing.assert_close(apart, torch.eye(8, dtype=torch.float64), atol=1e-5, rtol=0)
    assert module.inner.w_RH.square().mean() == pytest.approx(1, abs=0.02)


def test_a_seed_says_what_the_features_are_and_a_checkpoint_holds_them() -> None:
    one, same, other = (omni(KERNEL, seed=seed) for seed in (1, 1, 2))
    name = "between.partitions.0.inner.w_RH"
    assert torch.equal(one.state_dict()[name], same.state_dict()[name])
    assert not torch.equal(one.state_dict()[name], other.state_dict()[name])


@pytest.mark.parametrize("block", [4, 128])
@pytest.mark.parametrize("others", OTHERS, ids=str)
def test_nothing_leaks_from_later_tokens_with_kernels(
    others: dict[str, Any], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cheaper, "BLOCK", block)
    check_nothing_leaks(omni({**KERNEL, **others}, position="rotary"))


@pytest.mark.parametrize("attend", [KERNEL, LOW], ids=str)
def test_in_an_encoder_every_output_depends_on_every_input(attend: dict[str, Any]) -> None:
    check_every_output_depends_on_every_input(omni(attend, pattern="bidirectional"))


@pytest.mark.parametrize("others", OTHERS, ids=str)
@torch.no_grad()
def test_step_by_step_equals_the_full_pass_with_kernels(
    others: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cheaper, "BLOCK", 4)
    model, (tokens_BT, extra_BT) = omni({**KERNEL, **others}, position="rotary"), batch()
    cache, borders = KVCache(2), [0, 9, 14, *range(15, 22)]
    pieces = [model(tokens_BT[:, a:b], extra_BT[:, a:b], cache=cache) for a, b in itertools.pairwise(borders)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens_BT, extra_BT), atol=1e-4, rtol=1e-4)
    padded_BT = torch.cat((torch.zeros(3, 5, dtype=torch.long), tokens_BT), dim=1)
    alone_BT, beside_BT = (
        generate(model, prompt_BT, max_new_tokens=4, temperature=0, padding_B=torch.tensor([n] * 3))
        for prompt_BT, n in ((tokens_BT, 0), (padded_BT, 5))
    )
    assert torch.equal(beside_BT[:, 5:], alone_BT)


@pytest.mark.parametrize("pattern", ["causal", "bidirectional"])
@torch.no_grad()
def test_documents_stay_apart_with_kernels(pattern: str) -> None:
    model, (tokens_BT, extra_BT) = omni(KERNEL, pattern=pattern), batch()
    alone = [model(tokens_BT[:, a : a + 7], extra_BT[:, a : a + 7]) for a in (0, 7, 14)]
    together = model(tokens_BT, extra_BT, None, (torch.arange(21) // 7).expand(3, -1))
    torch.testing.assert_close(together, torch.cat(alone, dim=1), atol=1e-4, rtol=1e-4)


def test_the_cost_grows_with_the_text_and_not_with_its_square() -> None:
    costs = {}
    for attend in ({}, KERNEL):
        model = omni(attend)
        costs[len(attend)] = [model.mechanism.flops_per_token(model.config, n, 0.0) for n in (64, 128)]
    assert costs[2][0] == costs[2][1]
    assert costs[0][0] < costs[0][1]


@pytest.mark.parametrize(
    ("options", "pattern", "says"),
    [
        (LOW, "causal", r"mechanism_options.attend='low_rank': expected dense or kernel with model.pattern='causal'"),
        ({"rank": 8}, "causal", r"mechanism_options.rank=8: expected no value with attend='dense'"),
        ({"attend": "performer"}, "causal", r"attend='performer': expected one of dense, kernel, low_rank"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], pattern: str, says: str) -> None:
    shape = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 9, "mechanism": "omninet", "pattern": pattern}
    with pytest.raises(UserError, match=says):
        TransformerConfig(**shape, mechanism_options=options)


def test_low_rank_has_room_for_so_many_positions_and_keeps_no_documents_apart() -> None:
    model = omni(LOW, pattern="bidirectional", max_positions=16)
    tokens_BT = batch()[0]
    assert model(tokens_BT[:, :16]).isfinite().all()
    with pytest.raises(UserError, match=r"T=21 is larger than model.max_positions=16: model.mechanism='omninet' has"):
        model(tokens_BT)
    with pytest.raises(UserError, match=r"'omninet' cannot pack documents: with attend='low_rank'"):
        model(tokens_BT[:, :16], document_ids_BT=torch.zeros(3, 16, dtype=torch.long))
