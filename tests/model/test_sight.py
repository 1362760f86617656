"""Attention over the keys that a rule names is attention under the whole table, in outputs and gradients."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_metatok.model.attention.backends import blocked, chosen, reference
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import (
    Blockwise,
    Causal,
    ChunkMeta,
    ChunkWindow,
    Dilated,
    Extra,
    Pattern,
    SameDocument,
    Window,
    WindowMeta,
)
from lightning_metatok.model.attention.sight import Sight
from tests.model.helpers import tiny

RULES: list[Pattern] = [
    Window(w=9),
    WindowMeta(w=5),
    ChunkMeta(),
    ChunkWindow(back=2),
    Dilated(chunk=3).at(2, 3),
    Blockwise(block=9),
    Blockwise(block=9) & SameDocument(),
    Causal() & SameDocument(),
    WindowMeta(w=300) & SameDocument(),
    Causal() & Extra(),  # rows before the first extra token see nothing
]


def facts(generator: torch.Generator, B: int, T: int, share: float, documents: bool) -> Facts:
    extra_BT = torch.rand(B, T, generator=generator) < share
    ids_BT = (torch.rand(B, T, generator=generator) < 0.05).long().cumsum(dim=1) if documents else None
    return Facts.of(T, extra_BT, ids_BT)


def grads(out: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad((out * weights).sum(), inputs)]


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(
    seed=st.integers(0, 99),
    B=st.sampled_from([1, 3]),
    T=st.sampled_from([1, 17, 63, 257]),
    share=st.sampled_from([0.0, 0.1, 1.0]),
    documents=st.booleans(),
    tail=st.booleans(),
)
@settings(deadline=None, max_examples=12)
def test_chosen_keys_give_what_the_whole_table_gives(
    rule: Pattern, seed: int, B: int, T: int, share: float, documents: bool, tail: bool
) -> None:
    """In float64; `tail`: the queries are the last third alone, as in generation."""
    generator = torch.Generator().manual_seed(seed)
    known = facts(generator, B, T, share, documents)
    sight = Sight(rule, known, slice(T - max(1, T // 3) if tail else 0, T))
    inputs = [
        torch.randn(B, 2, n, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        for n in (sight.n_queries, T, T)
    ]
    q, k, v = inputs
    expected = grads(reference.attend(q, k, v, mask=sight.mask), inputs)
    for ours, right in zip(grads(chosen.attend(q, k, v, sight), inputs), expected, strict=True):
        torch.testing.assert_close(ours, right)


def test_what_no_row_needs_is_never_read() -> None:
    """Behind keys that nobody sees there may be anything."""
    generator = torch.Generator().manual_seed(0)
    sight = Sight(Window(w=8), Facts.of(400), slice(200, 400))
    q, k, v = (torch.randn(1, 1, n, 4, generator=generator) for n in (200, 400, 400))
    k[:, :, :190], v[:, :, :190] = torch.nan, torch.nan
    assert chosen.attend(q, k, v, sight).isfinite().all()


@pytest.mark.parametrize("arm", [{}, {"mechanism": "none", "position": "alibi"}, {"mechanism": "matched"}], ids=str)
def test_a_model_reads_a_long_text_the_same_way_by_blocks(arm: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    T = 1000
    generator = torch.Generator().manual_seed(1)
    tokens_BT, meta_BT = torch.randint(0, 50, (2, T), generator=generator), torch.rand(2, T, generator=generator) < 0.1
    options: dict[str, Any] = {"pattern": "window_meta", "pattern_options": {"w": 32}, "max_positions": T, **arm}
    asked = []
    pays = chosen.pays
    monkeypatch.setattr(chosen, "pays", lambda sight: asked.append(pays(sight)) or pays(sight))
    outs = []
    for backend in ("auto", "reference"):
        model = tiny(**options, attention_backend=backend)
        out = model(tokens_BT, meta_BT)
        out.square().mean().backward()
        outs.append([out.detach(), *(p.grad for p in model.parameters())])
    for ours, right in zip(*outs, strict=True):
        torch.testing.assert_close(ours, right, atol=2e-5, rtol=1e-4)
    assert any(asked) == ("position" not in arm), "by blocks, where no score is transformed"


@pytest.mark.parametrize("position", ["rotary", "alibi"])
def test_a_model_makes_no_table_where_it_reads_by_sight(position: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked, "BLOCK", 10_000)  # below that a table is small
    monkeypatch.setattr(Sight, "mask", property(lambda _: pytest.fail("a table of T x T")))
    tokens_BT, meta_BT = torch.zeros(1, 900, dtype=torch.int64), (torch.arange(900) % 9 == 8)[None]
    options: dict[str, Any] = {"pattern": "window_meta", "pattern_options": {"w": 32}, "max_positions": 900}
    tiny(**options, position=position)(tokens_BT, meta_BT).sum().backward()


def test_scores_are_transformed_under_a_sight_without_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked, "BLOCK", 512)
    generator = torch.Generator().manual_seed(2)
    sight = Sight(WindowMeta(w=9), facts(generator, 2, 90, 0.1, documents=False), slice(0, 90))
    q, k, v = (torch.randn(2, 2, 90, 4, generator=generator) for _ in range(3))
    score = reference.Score(lambda scores, rows: scores * 1.5)
    ours = blocked.attend(q, k, v, sight=sight, score=score)
    assert "mask" not in vars(sight)
    torch.testing.assert_close(ours, reference.attend(q, k, v, mask=sight.mask, score=score))
