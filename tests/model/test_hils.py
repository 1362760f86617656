"""HiLS against loops that pool each chunk's keys, and where it must be something that is known."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model import TransformerConfig
from lightning_metatok.model.attention.backends import blocked, reference
from lightning_metatok.model.attention.backends.reference import Score
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import Causal, SameDocument
from lightning_metatok.model.mechanisms import build
from lightning_metatok.model.mechanisms.grouped import Chunks, grouped_scores
from lightning_metatok.model.mechanisms.hils import HiLS, log_pool, of_pooled_keys
from lightning_metatok.model.positions.base import Rows
from lightning_metatok.model.recording import recorded
from tests.model.helpers import batch, check_any_chunking, tiny
from tests.model.test_landmark import blocks_of, softmax

OPTIONS: list[dict[str, Any]] = [
    {},
    {"top": 1},
    {"top": 2, "back": 1},
    {"entropy": False},
    {"pool": "mean"},
]


def pooled(lq: Tensor, k: Tensor, text: list[int], pool: str = "query") -> tuple[Tensor, Tensor]:
    """A chunk's key and its bias, one head."""
    if pool == "mean":
        p = [k.new_tensor(1 / len(text))] * len(text)
    else:
        p = softmax([lq @ k[j] / math.sqrt(k.shape[-1]) for j in text])
    key = sum((p_j * k[j] for p_j, j in zip(p, text, strict=True)), torch.zeros_like(k[0]))
    return key, -sum(p_j * p_j.log() for p_j in p)


def naive(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    extra: list[bool],
    documents: list[int],
    *,
    top: int | None = None,
    back: int = 0,
    pool: str = "query",
    entropy: bool = True,
) -> Tensor:
    """One head of one sample, [T, H], by the formulas of the paper."""
    rows, H = [], q.shape[-1]
    for i in range(len(q)):
        own, earlier = blocks_of(extra, documents, i)
        near = len(earlier) - back
        own = [*itertools.chain.from_iterable(text for text, _ in earlier[max(near, 0) :]), *own]
        z = []
        for text, mark in earlier[: max(near, 0)]:
            if text:
                key, bias = pooled(q[mark], k, text, pool)
                z.append((q[i] @ key / math.sqrt(H) + (bias if entropy else 0), text))
        chosen = sorted(z, key=lambda chunk: -float(chunk[0].detach()))[:top]
        if not own and not chosen:
            rows.append(v[i])
            continue
        weights = softmax([*(q[i] @ k[j] / math.sqrt(H) for j in own), *(score for score, _ in chosen)])
        out = sum((p * v[j] for p, j in zip(weights, own, strict=False)), torch.zeros_like(v[0]))
        for weight, (_, text) in zip(weights[len(own) :], chosen, strict=True):
            inside = softmax([q[i] @ k[j] / math.sqrt(H) for j in text])
            out = out + weight * sum(p * v[j] for p, j in zip(inside, text, strict=True))
        rows.append(out)
    return torch.stack(rows)


def score(facts: Facts, mechanism: HiLS) -> Score:
    n_chunks = int(facts.chunk_BK.max()) + 1

    def transform(scores: Tensor, rows: Rows) -> Tensor:
        chunks = Chunks(scores, facts, n_chunks, rows)
        return grouped_scores(chunks, mechanism.weight, top=mechanism.top, back=mechanism.back)

    return Score(transform)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@given(data=st.data())
@settings(deadline=None, max_examples=10)
def test_it_is_the_paper_s_in_outputs_and_gradients(options: dict[str, Any], data: st.DataObject) -> None:
    """float64; chunks without text, marks at the start and next to each other, and packed documents among them."""
    backend: Any = data.draw(st.sampled_from([reference, blocked]))
    n = data.draw(st.integers(1, 12))
    extra = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    jumps = data.draw(st.none() | st.lists(st.integers(0, 1), min_size=n, max_size=n))
    documents = list(itertools.accumulate(jumps)) if jumps else [0] * n
    facts = Facts.of(n, torch.tensor([extra]), torch.tensor([documents]) if jumps else None)
    q, k, v = leaves = [torch.randn(1, 2, n, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    mask = (Causal() & SameDocument()).mask(facts)[:, None] if jumps else None
    as_keys, old = torch.where(torch.tensor(extra)[:, None], q, k), blocked.BLOCK
    blocked.BLOCK = 2 * 3 * n  # three rows at a time
    try:
        ours = backend.attend(q, as_keys, v, mask=mask, score=score(facts, HiLS(**options)))
        expected = torch.stack([naive(q[0, h], k[0, h], v[0, h], extra, documents, **options) for h in range(2)])[None]
        torch.testing.assert_close(ours, expected)
        weights = torch.randn_like(ours)
        grads = [torch.autograd.grad((out * weights).sum(), leaves, materialize_grads=True) for out in (ours, expected)]
    finally:
        blocked.BLOCK = old
    for ours_grad, expected_grad in zip(*grads, strict=True):
        torch.testing.assert_close(ours_grad, expected_grad)


def one_chunk(q: float, lq: float, keys: list[float], mask: Tensor | None = None) -> Chunks:
    """Of a query behind a chunk of these keys and its mark."""
    n = len(keys) + 2
    k_BNKH = torch.tensor([*keys, lq, 0.0], dtype=torch.float64).view(1, 1, n, 1)
    q_BNQH = torch.full((1, 1, 1, 1), q, dtype=torch.float64)
    facts = Facts.of(n, torch.tensor([[False] * len(keys) + [True, False]]))
    return Chunks(q_BNQH @ k_BNKH.transpose(-1, -2), facts, 2, Rows(n - 1, q_BNQH, k_BNKH, mask))


def test_a_worked_example() -> None:
    chunks = one_chunk(1.0, 0.5, [1.0, 2.0, 4.0])
    log_p = log_pool(chunks)
    p, keys = log_p[0, 0, :3].exp(), torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    assert p.tolist() == pytest.approx([0.14024438, 0.2312239, 0.62853172], abs=5e-9)
    assert float(p @ keys) == pytest.approx(3.11681906, abs=5e-9)
    assert float(-(p * p.log()).sum()) == pytest.approx(0.90595926, abs=5e-9)
    assert of_pooled_keys(chunks, log_p)[..., 0].item() == pytest.approx(4.02277831, abs=5e-9)
    assert chunks.total_BNQC[..., 0].item() == pytest.approx(4.16984602, abs=5e-9)
    same = one_chunk(0.5, 0.5, [1.0, 2.0, 4.0])
    assert HiLS().weight(same)[..., 0].item() == pytest.approx(2.46436878, abs=5e-9)
    assert same.total_BNQC[..., 0].item() == pytest.approx(2.46436878, abs=5e-9)


@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_chunk_s_score_is_never_above_what_it_holds(data: st.DataObject) -> None:
    """And is all of that at the mark's own query; of a part of a chunk, of what is seen of it."""
    number = st.floats(-4, 4)
    keys, q = data.draw(st.lists(number, min_size=1, max_size=5)), data.draw(number)
    for lq in (data.draw(number), q):
        seen = data.draw(st.lists(st.booleans(), min_size=len(keys), max_size=len(keys)))
        chunks = one_chunk(q, lq, keys, torch.tensor([*seen, True, True]).view(1, 1, 1, -1))
        found, held = HiLS().weight(chunks)[..., 0].item(), chunks.total_BNQC[..., 0].item()
        assert found <= held + 1e-9
        if lq == q or sum(seen) <= 1:
            assert found == pytest.approx(held, abs=1e-9)


@torch.no_grad()
def probabilities(tokens_BT: Tensor, extra_BT: Tensor, **arm: Any) -> Tensor:
    """Of the first layer."""
    model = tiny(**arm)
    with recorded(model) as recording:
        model(tokens_BT, extra_BT)
    return recording.layers[0]["self_attention"].probs_BNTT


@pytest.mark.parametrize("case", ["chunks of one token", "a window of all chunks"])
def test_it_is_attention_over_the_text(case: str) -> None:
    tokens_BT, extra_BT = batch()
    extra_BT[:, 0] = False  # so that every mark has text before it
    options = {"back": 64}
    if case == "chunks of one token":
        extra_BT[:], options = torch.arange(21) % 2 == 1, {}
    plain = tiny(mechanism="none")
    with recorded(plain) as raw, torch.no_grad():
        plain(tokens_BT, extra_BT)
    scores_BNTT = raw.layers[0]["self_attention"].scores_BNTT.masked_fill(extra_BT[:, None, None], -math.inf)
    found = probabilities(tokens_BT, extra_BT, mechanism="hils", mechanism_options=options)
    torch.testing.assert_close(found, scores_BNTT.softmax(dim=-1), atol=1e-5, rtol=1e-5)
    assert not found.transpose(1, 3)[extra_BT].any(), "a mark is nobody's key"


@pytest.mark.parametrize(
    "arm",
    [
        {"mechanism_options": {"top": 2, "back": 1}},
        {"position": "alibi"},
        {"pattern": "window", "pattern_options": {"w": 6}},
        {"position": "xpos", "extra_position": "next"},
        {"n_kv_heads": 1, "denominator": "one"},
    ],
    ids=str,
)
@given(cuts=st.sets(st.integers(1, 20)))
@settings(deadline=None, max_examples=4)
def test_any_chunking_equals_the_full_pass(arm: dict[str, Any], cuts: set[int]) -> None:
    check_any_chunking(tiny(mechanism="hils", **arm), cuts)


@torch.no_grad()
def test_documents_stay_closed() -> None:
    model, (tokens_BT, extra_BT) = tiny(mechanism="hils", mechanism_options={"top": 1}), batch()
    ids_BT, places_BT = (torch.arange(21) // 7).expand(3, -1), (torch.arange(21) % 7).expand(3, -1)
    alone = [model(tokens_BT[:, a : a + 7], extra_BT[:, a : a + 7]) for a in (0, 7, 14)]
    together = model(tokens_BT, extra_BT, places_BT, ids_BT)
    torch.testing.assert_close(together, torch.cat(alone, dim=1), atol=1e-5, rtol=1e-5)


def test_a_choice_has_a_gradient_that_landmarks_and_means_lack() -> None:
    """Only through pools does what a mark's query is reach the tokens behind it, its own row's output aside."""
    q, k, v = (torch.randn(1, 1, 6, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    extra_T = torch.tensor([False, False, True, False, False, False])
    for pool, learns in (("query", True), ("mean", False)):
        as_keys = torch.where(extra_T[:, None], q, k)
        out = reference.attend(q, as_keys, v, score=score(Facts.of(6, extra_T[None]), HiLS(pool=pool)))
        (grad,) = torch.autograd.grad(out[:, :, -1].square().sum(), q)
        assert bool(grad[0, 0, 2].any()) == learns


def test_every_parameter_learns_and_autocast_stays_near() -> None:
    model, (tokens_BT, extra_BT) = tiny(mechanism="hils", mechanism_options={"top": 2}), batch()
    logits_BTV = model(tokens_BT, extra_BT)
    torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT.flatten()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        assert model(tokens_BT, extra_BT).isfinite().all()


def test_a_mass_too_small_to_be_counted_stays_finite() -> None:
    """The mark's query gives nearly nothing to the one token of the chunk that is seen."""
    keys, mask = [-900.0, 900.0], torch.tensor([True, False, True, True]).view(1, 1, 1, -1)
    chunks = one_chunk(1.0, 1.0, keys, mask)
    assert HiLS().weight(chunks).isfinite().all()


def test_mistakes_are_named() -> None:
    shape = {"n_layers": 1, "n_heads": 1, "d_model": 8, "vocab_size": 9, "max_positions": 64, "mechanism": "hils"}
    for options, message in (
        ({"top": 65}, r"model.mechanism_options.top=65: expected no more blocks than model.max_positions=64 has room"),
        ({"back": -1}, r"model.mechanism_options.back=-1: expected .*0"),
        ({"pool": "max"}, r"model.mechanism_options.pool='max': expected"),
        ({"tops": 1}, r"tops.*top"),
    ):
        with pytest.raises(UserError, match=message):
            TransformerConfig(**shape, mechanism_options=options)
    assert build("hils", top=2, back=1, pool="mean", entropy=False).says() == ["top 2", "back 1", "mean", "no entropy"]
