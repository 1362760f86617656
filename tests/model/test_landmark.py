"""Landmark attention against loops that say what its paper says, block by block."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_metatok.model.attention.backends import blocked, reference
from lightning_metatok.model.attention.backends.reference import Score
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import Causal, SameDocument
from lightning_metatok.model.mechanisms.grouped import Chunks, grouped_scores
from lightning_metatok.model.mechanisms.landmark import of_landmarks
from lightning_metatok.model.recording import recorded
from tests.model.helpers import batch, check_any_chunking, tiny


def blocks_of(extra: list[bool], documents: list[int], i: int) -> tuple[list[int], list[tuple[list[int], int]]]:
    """Of query i: the text of its own block up to i, and of each earlier block the text and the landmark."""
    start = next(j for j in range(i + 1) if documents[j] == documents[i])
    own: list[int] = []
    earlier: list[tuple[list[int], int]] = []
    for j in range(start, i + 1):
        if extra[j] and j != i:
            earlier.append((own, j))
            own = []
        elif not extra[j]:
            own.append(j)
    return own, earlier


def softmax(values: list[Tensor]) -> list[Tensor]:
    largest = max(float(v.detach()) for v in values)
    exps = [(v - largest).exp() for v in values]
    total = sum(exps)
    return [e / total for e in exps]


def naive(q: Tensor, k: Tensor, v: Tensor, extra: list[bool], documents: list[int]) -> Tensor:
    """One head of one sample, [T, H], one weight after the other."""
    rows = []
    for i in range(len(q)):
        own, earlier = blocks_of(extra, documents, i)
        earlier = [(text, mark) for text, mark in earlier if text]
        score = {j: q[i] @ k[j] / math.sqrt(q.shape[-1]) for j in range(i + 1)}
        group = [*own, *(mark for _, mark in earlier)]
        if not group:
            rows.append(v[i])
            continue
        weight = dict(zip(group, softmax([score[j] for j in group]), strict=True))
        out = sum((weight[j] * v[j] for j in own), torch.zeros_like(v[0]))
        for text, mark in earlier:
            for j, p in zip(text, softmax([score[j] for j in text]), strict=True):
                out = out + weight[mark] * p * v[j]
        rows.append(out)
    return torch.stack(rows)


def transform(facts: Facts) -> Score:
    n_chunks = int(facts.chunk_BK.max()) + 1
    return Score(lambda scores, rows: grouped_scores(Chunks(scores, facts, n_chunks, rows), of_landmarks))


@pytest.mark.parametrize("backend", ["reference", "blocked"])
@given(data=st.data())
@settings(deadline=None, max_examples=40)
def test_it_is_the_paper_s_in_outputs_and_gradients(backend: str, data: st.DataObject) -> None:
    """float64; blocks without text, landmarks at the start and next to each other, and packed documents among them."""
    n = data.draw(st.integers(1, 14))
    extra = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    jumps = data.draw(st.none() | st.lists(st.integers(0, 1), min_size=n, max_size=n))
    documents = list(itertools.accumulate(jumps)) if jumps else [0] * n
    facts = Facts.of(n, torch.tensor([extra]), torch.tensor([documents]) if jumps else None)
    leaves = [torch.randn(1, 2, n, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    mask = (Causal() & SameDocument()).mask(facts)[:, None] if jumps else None
    attend, old = (reference if backend == "reference" else blocked).attend, blocked.BLOCK
    blocked.BLOCK = 2 * 3 * n  # three rows at a time
    try:
        ours = attend(*leaves, mask=mask, score=transform(facts))
        expected = torch.stack(
            [naive(*(x[0, head] for x in leaves), extra, documents) for head in range(2)]  # type: ignore[call-arg]
        )[None]
        torch.testing.assert_close(ours, expected)
        weights = torch.randn_like(ours)
        grads = [torch.autograd.grad((out * weights).sum(), leaves, materialize_grads=True) for out in (ours, expected)]
    finally:
        blocked.BLOCK = old
    for ours_grad, expected_grad in zip(*grads, strict=True):
        torch.testing.assert_close(ours_grad, expected_grad)


@torch.no_grad()
def test_without_landmarks_it_is_plain_attention() -> None:
    model, plain, (tokens_BT, meta_mask_BT) = tiny(mechanism="landmark"), tiny(mechanism="none"), batch()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model(tokens_BT), plain(tokens_BT))
    nowhere = torch.zeros_like(meta_mask_BT)
    torch.testing.assert_close(model(tokens_BT, nowhere), plain(tokens_BT), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model(tokens_BT, meta_mask_BT), plain(tokens_BT, meta_mask_BT), atol=1e-2)


@pytest.mark.parametrize(
    "arm", [{}, {"position": "alibi"}, {"pattern": "window", "pattern_options": {"w": 6}}], ids=str
)
@given(cuts=st.sets(st.integers(1, 20)))
@settings(deadline=None, max_examples=8)
def test_any_chunking_equals_the_full_pass(arm: dict[str, Any], cuts: set[int]) -> None:
    check_any_chunking(tiny(mechanism="landmark", **arm), cuts)


@torch.no_grad()
def test_marks_get_no_weight_and_rows_sum_to_one() -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(mechanism="landmark"), batch()
    meta_mask_BT[:, 0] = False
    with recorded(model) as recording:
        model(tokens_BT, meta_mask_BT)
    for layer in recording.layers:
        probs_BNTT = layer["self_attention"].probs_BNTT
        torch.testing.assert_close(probs_BNTT.sum(dim=-1), torch.ones(3, 2, 21))
        assert not probs_BNTT.transpose(1, 3)[meta_mask_BT].any()


def test_every_parameter_learns_and_autocast_stays_near() -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(mechanism="landmark"), batch()
    logits_BTV = model(tokens_BT, meta_mask_BT)
    torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT.flatten()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        low = model(tokens_BT, meta_mask_BT)
    assert low.isfinite().all()
