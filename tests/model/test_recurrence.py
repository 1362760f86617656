"""Recurrent memory: against a loop that is written out, where gradients end, what carries, and a cache."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from lightning_metatok.errors import UserError
from lightning_metatok.model import KVCache, MetaTransformer, TransformerConfig, build, generate
from lightning_metatok.model.memory import Memory, cache_of
from lightning_metatok.model.recording import recorded
from lightning_metatok.model.recurrent import RecurrentTransformer
from tests.model.helpers import VOCABULARY, batch

SHAPE: dict[str, Any] = {
    **{"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": VOCABULARY, "max_positions": 64},
    "mechanism": "none",
}


def recurrent(
    segment: int = 5, memory: int = 3, bptt: int = 8, *, carry: bool = False, **changes: Any
) -> RecurrentTransformer:
    """A small one with weights large enough that memory matters."""
    options = {"segment": segment, "memory": memory, "bptt": bptt, "carry": carry}
    torch.manual_seed(0)
    model = build(TransformerConfig(**{**SHAPE, "recurrence": "rmt", "recurrence_options": options, **changes})).eval()
    assert isinstance(model, RecurrentTransformer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model


def a_pass(model: MetaTransformer, x_ND: Tensor) -> Tensor:
    """The normed states of a pre-norm model without positions, a query and a head at a time."""
    n, d = x_ND.shape
    heads, width = model.config.n_heads, model.config.head_dim

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        return (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt() * weight

    for block in model.blocks:
        parts: Any = block
        weights = parts.attention.projections
        q, k, v = (torch.stack([norm(x, parts.norm_attention.weight) for x in x_ND]) @ weights.qkv.weight.T).split(
            d, dim=1
        )
        rows = []
        for i in range(n):
            of_heads = []
            for h in range(heads):
                here = slice(h * width, (h + 1) * width)
                scores = torch.stack([q[i, here] @ k[j, here] / math.sqrt(width) for j in range(i + 1)])
                of_heads.append(sum(p * v[j, here] for j, p in enumerate(scores.softmax(dim=0))))
            rows.append(torch.cat(of_heads))  # type: ignore[arg-type]
        x_ND = x_ND + torch.stack(rows) @ weights.out.weight.T
        inner = torch.stack([norm(x, parts.norm_mlp.weight) for x in x_ND]) @ parts.mlp.up.weight.T
        x_ND = x_ND + F.gelu(inner) @ parts.mlp.down.weight.T
    return torch.stack([norm(x, model.norm.weight) for x in x_ND])  # type: ignore[arg-type]


def twin(model: RecurrentTransformer, tokens_T: Tensor, bptt: int) -> Tensor:
    """Logits [T, V] of a row, segment by segment."""
    S, M, logits = model.rule.segment, model.rule.memory, []
    memory_MD: Tensor = model.memory_MD
    for number, start in enumerate(range(0, len(tokens_T), S)):
        text_SD = model.embedding.weight[tokens_T[start : start + S]]
        if number in range(bptt + 1, len(tokens_T), bptt + 1):
            memory_MD = memory_MD.detach()
        found = a_pass(model, torch.cat((memory_MD, text_SD, memory_MD)))
        logits.append(found[M : M + len(text_SD)] @ model.embedding.weight.T)
        memory_MD = found[M + len(text_SD) :]
    return torch.cat(logits)


@pytest.mark.parametrize("bptt", [1, 8])
def test_it_is_the_loop_in_outputs_and_gradients(bptt: int) -> None:
    model = recurrent(segment=3, memory=2, bptt=bptt, position="none").double()
    tokens_BT = batch(n=2, length=8)[0]
    weights_BTV = torch.randn(2, 8, VOCABULARY, dtype=torch.float64)
    found = model(tokens_BT)
    expected = torch.stack([twin(model, tokens_T, bptt) for tokens_T in tokens_BT])
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    parameters = list(model.parameters())
    ours, theirs = (torch.autograd.grad((x * weights_BTV).sum(), parameters) for x in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_a_row_of_one_segment_without_memory_is_the_plain_model_bit_for_bit() -> None:
    tokens_BT = batch()[0]
    plain = build(TransformerConfig(**SHAPE), seed=3)
    model = build(TransformerConfig(**SHAPE, recurrence="rmt", recurrence_options={"segment": 21, "memory": 4}), seed=3)
    assert isinstance(model, RecurrentTransformer)
    assert not torch.equal(model(tokens_BT), plain(tokens_BT))
    weights = model.state_dict()
    assert weights.pop("memory_MD").std() == pytest.approx(0.02, rel=0.5)
    assert all(torch.equal(weight, weights[name]) for name, weight in plain.state_dict().items())
    model.memory_MD = torch.nn.Parameter(model.memory_MD[:0])
    assert torch.equal(model(tokens_BT), plain(tokens_BT))


def test_rows_that_go_on_are_one_long_row_in_outputs_and_gradients() -> None:
    """Blocks of two segments, gradients over two segments: a long row's groups begin where its blocks do."""
    model, tokens_BT = recurrent(segment=3, bptt=1, carry=True, position="none").double().train(), batch(length=18)[0]
    weights_BTV = torch.randn(3, 18, VOCABULARY, dtype=torch.float64)
    parameters = list(model.parameters())
    for _ in range(2):
        model.carried_BMD = None
        found = torch.cat([model(tokens_BT[:, at : at + 6]) for at in (0, 6, 12)], dim=1)
        expected = torch.stack([twin(model, tokens_T, 1) for tokens_T in tokens_BT])
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
        ours, theirs = (torch.autograd.grad((x * weights_BTV).sum(), parameters) for x in (found, expected))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)
    carried_BMD = model.carried_BMD
    assert carried_BMD is not None
    assert not carried_BMD.requires_grad
    model.eval()
    assert not torch.equal(model(tokens_BT[:, 6:12]), expected[:, 6:12]), "evaluation begins with each row"
    assert model.carried_BMD is carried_BMD


@pytest.mark.parametrize("bptt", [1, 2])
def test_gradients_go_back_to_the_start_of_their_group_and_no_further(
    bptt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    S, n = 3, 6
    model, tokens_BT = recurrent(segment=S, bptt=bptt), batch(length=S * n)[0]
    entered: list[Tensor] = []
    embedded = RecurrentTransformer.embedded

    def kept(self: RecurrentTransformer, *arguments: Any, **options: Any) -> Tensor:
        x_BTD = embedded(self, *arguments, **options).detach().requires_grad_() + 0
        if self._around is not None:  # memory keeps its history, text begins one
            memory_BMD, before, behind = self._around
            text_BTD = x_BTD[:, before : x_BTD.shape[1] - behind]
            text_BTD.retain_grad()
            entered.append(text_BTD)
            x_BTD = torch.cat((memory_BMD[:, :before], text_BTD, memory_BMD[:, :behind]), dim=1)
        return x_BTD

    monkeypatch.setattr(RecurrentTransformer, "embedded", kept)
    for read in range(n):
        entered.clear()
        model(tokens_BT)[:, read * S : (read + 1) * S].square().sum().backward()
        reached = [i for i, text in enumerate(entered) if text.grad is not None and bool(text.grad.any())]
        first = read - read % (bptt + 1)
        assert reached == list(range(first, read + 1))
        assert len(reached) <= bptt + 1
    assert bptt + 1 < n


def test_nothing_reaches_the_next_segment_but_through_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (tokens_BT, _) = recurrent(segment=5), batch(length=15)
    changed_BT = tokens_BT.clone()
    changed_BT[:, 2] = (changed_BT[:, 2] + 1) % VOCABULARY
    found, other = model(tokens_BT), model(changed_BT)
    assert torch.equal(found[:, :2], other[:, :2])
    assert not torch.isclose(found[:, 5:10], other[:, 5:10]).all(dim=-1).any(), "memory carries to all of the next"
    assert not torch.isclose(found[:, 10:], other[:, 10:]).all(dim=-1).any(), "and beyond"
    embedded = RecurrentTransformer.embedded

    def blocked(self: RecurrentTransformer, *arguments: Any, **options: Any) -> Tensor:
        assert self._around is not None
        self._around = torch.zeros_like(self._around[0]), *self._around[1:]
        return embedded(self, *arguments, **options)

    monkeypatch.setattr(RecurrentTransformer, "embedded", blocked)
    found, other = model(tokens_BT), model(changed_BT)
    assert not torch.equal(found[:, 2:5], other[:, 2:5])
    assert torch.equal(found[:, 5:], other[:, 5:])


def test_positions_begin_anew_in_each_segment_behind_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = recurrent(segment=5, memory=2)
    seen: list[list[int]] = []
    prepare = type(model.positions).prepare

    def noted(self: Any, position_ids_BT: Tensor, keep_BT: Tensor | None) -> Any:
        seen.append(position_ids_BT[0].tolist())
        return prepare(self, position_ids_BT, keep_BT)

    monkeypatch.setattr(type(model.positions), "prepare", noted)
    model(batch(length=12)[0])
    assert seen == [[*range(9)], [*range(9)], [0, 1, 2, 3]]


ARMS: list[dict[str, Any]] = [
    {},
    {"position": "alibi", "denominator": "sink"},
    {"position": "learned", "norm": "post"},
    {"mechanism": "meta", "extra_position": "last"},
    {"mechanism": "own_qkv", "extra_position": "next"},
    {"mechanism": "omninet"},
    {"mechanism": "matched", "drop_positions": "both"},
]


@pytest.mark.parametrize("arm", ARMS, ids=str)
@given(cuts=st.sets(st.integers(1, 20)))
@settings(deadline=None, max_examples=2)
@torch.no_grad()
def test_any_chunking_equals_the_full_pass(arm: dict[str, Any], cuts: set[int]) -> None:
    model, (tokens_BT, extra_BT) = recurrent(**arm), batch()
    cache, borders = cache_of(model), [0, *sorted(cuts), 21]
    pieces = [model(tokens_BT[:, a:b], extra_BT[:, a:b], cache=cache) for a, b in itertools.pairwise(borders)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(tokens_BT, extra_BT), atol=1e-5, rtol=1e-5)
    assert cache.length == 21


@torch.no_grad()
def test_generation_keeps_a_segment_and_writes_what_full_passes_write() -> None:
    model, tokens_BT = recurrent(segment=4, memory=2), batch(length=7)[0]
    found = generate(model, tokens_BT, max_new_tokens=9, temperature=0)
    for n in range(7, 16):
        assert torch.equal(model(found[:, :n])[:, -1].argmax(dim=-1), found[:, n])
    cache = cache_of(model)
    for t in range(15):
        model(found[:, t : t + 1], cache=cache)
        assert cache.beside[1].layers[0]["self_attention"].n <= 4 + 2 * 2
    with pytest.raises(UserError, match="keeps its memory and the segment at hand; expected auto or all"):
        cache_of(model, Memory("window"))
    with pytest.raises(UserError, match="expected prompts of one length"):
        model(tokens_BT, cache=KVCache(2, padding_B=torch.tensor([0, 1, 0])))


def test_flops_are_those_of_its_passes() -> None:
    model, plain = recurrent(segment=8, memory=2), build(TransformerConfig(**SHAPE))
    rows, head = [12, 12, 6], 6 * VOCABULARY * 16  # 8 + 8 + 4 positions of text; the last writes no memory
    passes = sum(n * (plain.flops_per_token(n) - head) for n in rows)
    assert model.flops_per_token(20) == pytest.approx(passes / 20 + head)
    assert model.rows_per_token(20) == 30 / 20
    whole = recurrent(segment=20, memory=1)
    assert whole.flops_per_token(20) == pytest.approx((21 * (plain.flops_per_token(21) - head)) / 20 + head)
    extra_T = torch.zeros(20, dtype=torch.bool)
    assert (model.reach(extra_T).layer, model.reach(extra_T).text, model.reach(extra_T).all) == (3, 3, 19)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"segment": 0}, r"recurrence_options\.segment=0: expected 1 or more"),
        ({"memory": 0}, r"recurrence_options\.memory=0: expected 1 or more"),
        ({"bptt": 0}, r"recurrence_options\.bptt=0: expected 1 or more"),
        ({"segment": 65}, r"recurrence_options\.segment=65: expected no more than model\.max_positions=64"),
        ({"segment": 60, "position": "learned"}, r"a segment and its memory have 66 positions"),
        ({"pattern": "window"}, r"pattern='window': expected 'causal'.*recurrence='rmt'"),
        ({"mechanism": "landmark"}, r"mechanism='landmark': expected one that leaves scores alone"),
        ({"mechanism": "unfold"}, r"mechanism='unfold': expected one that leaves scores alone"),
        ({"position": "coupled"}, r"position='coupled': expected one that counts"),
        ({"position": "learned", "position_options": {"random_start": True}}, r"random_start=True: expected false"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_in_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        recurrent(**changes)
    assert "\n" not in str(refused.value)


def test_names_options_and_rows_that_are_none_are_refused() -> None:
    for changes, said in (
        ({"recurrence": "rnt"}, "did you mean 'rmt'|rmt"),
        ({"recurrence": "rmt", "recurrence_options": {"carry": 3}}, r"recurrence_options\.carry=3"),
        ({"recurrence_options": {"segment": 8}}, "segment"),
    ):
        with pytest.raises(UserError, match=said):
            TransformerConfig(**SHAPE, **changes)  # type: ignore[arg-type]
    rule, tokens_BT = recurrent(segment=8).rule, batch()[0]
    rule.check_rows(16, even=True, contiguous=False)
    rule.check_rows(21, even=False, contiguous=False)
    with pytest.raises(UserError, match="segment=8: expected a divisor of the 21 positions of a block"):
        rule.check_rows(21, even=True, contiguous=False)
    with pytest.raises(UserError, match="segment=8: expected no more than the 7 positions of the longest row"):
        rule.check_rows(7, even=False, contiguous=False)
    carries = recurrent(segment=8, carry=True).rule
    carries.check_rows(16, even=True, contiguous=True)
    with pytest.raises(UserError, match=r"carry=True: expected false, or text with data\.contiguous=true"):
        carries.check_rows(16, even=True, contiguous=False)
    with pytest.raises(UserError, match="cannot pack documents: its memory goes on"):
        recurrent()(tokens_BT, document_ids_BT=tokens_BT)
    with pytest.raises(UserError, match="cannot be recorded or changed inside"), recorded(recurrent()):
        pass
