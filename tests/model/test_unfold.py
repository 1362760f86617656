"""Chunks that are opened: against a loop that opens them one by one, and at both ends of `top`."""

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
from lightning_metatok.model.attention import patterns
from lightning_metatok.model.recording import recorded
from tests.model.helpers import batch, check_any_chunking, tiny

CHUNKS: dict[str, Any] = {"pattern": "chunk_meta"}


def expected_rows(scores_TT: Tensor, extra_T: list[bool], seen_TT: Tensor, top: int) -> Tensor:
    """Which keys each query reads, one head of one sample, chunk by chunk."""
    n = len(extra_T)
    chunk = [sum(extra_T[s] and not extra_T[s + 1] for s in range(t)) for t in range(n)]
    own = [sum(extra_T[:t]) for t in range(n)]
    reads = seen_TT.clone()
    for i in range(n):
        marks = [j for j in range(i + 1) if extra_T[j] and seen_TT[i, j] and own[j] != own[i]]
        best = {c: max(float(scores_TT[i, j]) for j in marks if chunk[j] == c) for c in {chunk[j] for j in marks}}
        for c in sorted(best, key=lambda c: -best[c])[:top]:
            for j in range(i + 1):
                reads[i, j] |= chunk[j] == c
    return reads


@given(data=st.data())
@settings(deadline=None, max_examples=25)
@torch.no_grad()
def test_it_opens_what_a_loop_opens(data: st.DataObject) -> None:
    n, top = data.draw(st.integers(1, 16)), data.draw(st.integers(1, 4))
    extra = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    tokens_1T, extra_1T = torch.arange(n)[None] % 30, torch.tensor([extra])
    pattern = {"pattern": "chunk_window", "pattern_options": {"back": 0, "extra_sees": "earlier"}}
    model = tiny(mechanism="unfold", mechanism_options={"top": top}, **pattern)
    plain = tiny(mechanism="none", pattern="causal")
    plain.load_state_dict(model.state_dict())
    with recorded(model) as ours, recorded(plain) as raw:
        model(tokens_1T, extra_1T)
        plain(tokens_1T, extra_1T)
    rule = patterns.build("chunk_window", back=0, extra_sees="earlier")
    from lightning_metatok.model.attention.facts import Facts

    seen_TT = rule.mask(Facts.of(n, extra_1T))[0]
    for head in range(2):
        # The first layer's scores are those of plain attention: it reads the same stream.
        reads = expected_rows(raw.layers[0]["self_attention"].scores_BNTT[0, head], extra, seen_TT, top)
        found = ours.layers[0]["self_attention"].scores_BNTT[0, head]
        assert torch.equal(~found.isneginf(), reads)


@torch.no_grad()
def test_none_is_the_pattern_and_all_is_everything() -> None:
    tokens_BT, extra_BT = batch()
    for top, same in ((0, {"mechanism": "none", **CHUNKS}), (64, {"mechanism": "none", "pattern": "causal"})):
        model, twin = tiny(mechanism="unfold", mechanism_options={"top": top}, **CHUNKS), tiny(**same)
        twin.load_state_dict(model.state_dict())
        torch.testing.assert_close(model(tokens_BT, extra_BT), twin(tokens_BT, extra_BT), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arm", [CHUNKS, {**CHUNKS, "position": "alibi"}, {**CHUNKS, "denominator": "one"}], ids=str)
@given(cuts=st.sets(st.integers(1, 20)))
@settings(deadline=None, max_examples=8)
def test_any_chunking_equals_the_full_pass(arm: dict[str, Any], cuts: set[int]) -> None:
    check_any_chunking(tiny(mechanism="unfold", **arm), cuts)


@torch.no_grad()
def test_documents_stay_closed() -> None:
    model, (tokens_BT, extra_BT) = tiny(mechanism="unfold", mechanism_options={"top": 64}, **CHUNKS), batch()
    ids_BT = (torch.arange(21) // 7).expand(3, -1)
    alone = [model(tokens_BT[:, a : a + 7], extra_BT[:, a : a + 7]) for a in (0, 7, 14)]
    places_BT = (torch.arange(21) % 7).expand(3, -1)
    together = model(tokens_BT, extra_BT, places_BT, ids_BT)
    torch.testing.assert_close(together, torch.cat(alone, dim=1), atol=1e-5, rtol=1e-5)


def test_everything_learns() -> None:
    model, (tokens_BT, extra_BT) = tiny(mechanism="unfold", **CHUNKS), batch()
    torch.nn.functional.cross_entropy(model(tokens_BT, extra_BT).flatten(0, 1), tokens_BT.flatten()).backward()
    assert all(p.grad is not None and p.grad.any() and p.grad.isfinite().all() for p in model.parameters())


def test_exact_landmarks_are_attention_over_the_text() -> None:
    """Blocks scored by what they hold, all of them read: no query can tell blocks from text."""
    model, (tokens_BT, extra_BT) = tiny(mechanism="landmark", mechanism_options={"exact": True}), batch()
    extra_BT[:, 0] = False  # so that every landmark has text before it
    with recorded(model) as recording:
        model(tokens_BT, extra_BT)
    found = recording.layers[0]["self_attention"]
    plain = tiny(mechanism="none")
    plain.load_state_dict(model.state_dict())
    with recorded(plain) as raw:
        plain(tokens_BT, extra_BT)
    scores = raw.layers[0]["self_attention"].scores_BNTT.masked_fill(extra_BT[:, None, None], -math.inf)
    torch.testing.assert_close(found.probs_BNTT, scores.softmax(dim=-1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_few_landmarks_are_the_best_ones() -> None:
    tokens_BT, extra_BT = batch()
    outs = {}
    for top in (None, 1, 2, 64):
        model = tiny(mechanism="landmark", mechanism_options={"top": top})
        with recorded(model) as recording:
            model(tokens_BT, extra_BT)
        outs[top] = recording.layers[0]["self_attention"].probs_BNTT
    torch.testing.assert_close(outs[64], outs[None])
    chunk_BT = torch.nn.functional.pad(extra_BT[:, :-1], (1, 0)).cumsum(dim=1)
    for top in (1, 2):
        read = outs[top][:, :, -1] > 0
        own = chunk_BT == chunk_BT[:, -1:]
        for b, head in itertools.product(range(3), range(2)):
            chunks = set(chunk_BT[b][read[b, head] & ~own[b]].tolist())
            assert len(chunks) <= top
        assert not torch.allclose(outs[top], outs[None])


def test_mistakes_are_named() -> None:
    shape = {"n_layers": 1, "n_heads": 1, "d_model": 8, "vocab_size": 9, "max_positions": 64}
    with pytest.raises(UserError, match=r"model.mechanism_options.top=65: expected no more chunks than"):
        TransformerConfig(**shape, mechanism="unfold", mechanism_options={"top": 65}, **CHUNKS)
    with pytest.raises(UserError, match=r"model.mechanism_options.top=65: expected no more blocks than"):
        TransformerConfig(**shape, mechanism="landmark", mechanism_options={"top": 65})
