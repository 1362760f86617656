"""KSA's rule: against loops over pairs, its published numbers, and in generation in layers of both widths."""

import itertools
from typing import Any

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.model import TransformerConfig
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import ChunkWindow
from lightning_metatok.model.memory import Memory, cache_of
from tests.model.helpers import batch, tiny
from tests.model.test_memory import step_by_step


def chunked(n_chunks: int, c: int, s: int) -> tuple[torch.Tensor, list[int]]:
    """Extra tokens behind chunks of `c` tokens, `s` each, and the chunk of each token."""
    extra_T = torch.tensor(([False] * c + [True] * s) * n_chunks)
    return extra_T, [t // (c + s) for t in range(len(extra_T))]


@pytest.mark.parametrize(("c", "s", "back"), [(2, 1, 1), (3, 2, 1), (2, 1, 0), (1, 1, 2), (3, 2, 9)])
@pytest.mark.parametrize("sees", ["own", "earlier", "all"])
@pytest.mark.parametrize("read", [True, False])
def test_it_is_the_published_rule_pair_by_pair(c: int, s: int, back: int, sees: Any, read: bool) -> None:
    extra_T, chunk = chunked(5, c, s)
    rule = ChunkWindow(back=back, extra_sees=sees, read=read)
    mask_TT = rule.mask(Facts.of(len(extra_T), extra_T[None]))[0]
    for i, j in itertools.product(range(len(extra_T)), repeat=2):
        near = chunk[j] >= chunk[i] - back
        text = read and not near if extra_T[j] else near
        extra = {"own": chunk[i] == chunk[j], "earlier": chunk[i] == chunk[j] or bool(extra_T[j]), "all": True}[sees]
        assert bool(mask_TT[i, j]) == (j <= i and (extra if extra_T[i] else text)), (i, j)


def test_keys_of_each_row_are_as_many_as_published() -> None:
    """Chunks of 2 with one summary, a window of one chunk; and o + 1 + C min(c, W) + S max(0, c - W) for any."""
    extra_T, _ = chunked(4, 2, 1)
    counts = ChunkWindow(back=1).mask(Facts.of(12, extra_T[None]))[0].sum(dim=1)
    assert counts.tolist() == [1, 2, 3, 3, 4, 3, 4, 5, 3, 5, 6, 3]
    C, S, W = 4, 2, 3
    extra_T, chunk = chunked(7, C, S)
    counts = ChunkWindow(back=W).mask(Facts.of(len(extra_T), extra_T[None]))[0].sum(dim=1)
    for t, n in enumerate(counts.tolist()):
        o, c = t % (C + S), chunk[t]
        assert n == (o + 1 if extra_T[t] else o + 1 + C * min(c, W) + S * max(0, c - W)), t


@torch.no_grad()
def test_with_a_window_longer_than_the_text_text_is_read_as_if_nothing_stood_between() -> None:
    tokens_BS, _ = batch(n=2, length=16)
    extra_T, _ = chunked(4, 4, 1)
    tokens_BT = torch.full((2, 20), 7)
    tokens_BT[:, ~extra_T] = tokens_BS
    options: dict[str, Any] = {"mechanism": "none", "position": "none"}
    model = tiny(**options, pattern="chunk_window", pattern_options={"back": 4})
    text_BSV = model(tokens_BT, extra_T.expand(2, -1))[:, ~extra_T]
    torch.testing.assert_close(text_BSV, tiny(**options)(tokens_BS), atol=1e-5, rtol=1e-5)
    short = tiny(**options, pattern="chunk_window", pattern_options={"back": 1})(tokens_BT, extra_T.expand(2, -1))
    assert not torch.allclose(short[:, ~extra_T][:, -1], text_BSV[:, -1], atol=1e-2)
    unread = {"back": 1, "read": False}
    changed_BT = torch.where(extra_T, 8, tokens_BT)
    for pattern_options, same in ((unread, True), ({"back": 1}, False)):
        model = tiny(**options, pattern="chunk_window", pattern_options=pattern_options)
        seen = [model(tokens, extra_T.expand(2, -1))[:, ~extra_T] for tokens in (tokens_BT, changed_BT)]
        assert torch.equal(*seen) == same


@pytest.mark.parametrize("mechanism", ["none", "meta"])
@pytest.mark.parametrize("wide", [{}, {"wide_every": 2, "wide_back": 3}], ids=str)
@torch.no_grad()
def test_generation_sees_what_training_saw_in_layers_of_either_width(mechanism: str, wide: dict[str, int]) -> None:
    model = tiny(mechanism=mechanism, pattern="chunk_window", pattern_options={"back": 1, **wide})
    for inputs in (batch(), (batch(length=40)[0], chunked(8, 4, 1)[0].expand(3, -1))):
        full = model(*inputs)
        torch.testing.assert_close(step_by_step(model, Memory(), inputs), full, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_memory_holds_the_window_and_the_summaries() -> None:
    """C + W C text rows and a summary a chunk, and what waits for a page to fill up."""
    C, W, page = 4, 2, 4
    extra_T, _ = chunked(40, C, 1)
    model = tiny(mechanism="none", pattern="chunk_window", pattern_options={"back": W}, max_positions=len(extra_T))
    tokens_BT = torch.arange(len(extra_T))[None] % 50
    cache = cache_of(model, page=page)
    for t in range(len(extra_T)):
        model(tokens_BT[:, t : t + 1], extra_T[None, t : t + 1], cache=cache)
        kept, summaries = cache.layers[0]["self_attention"].n, int(extra_T[: t + 1].sum())
        assert kept <= C + W * C + summaries + page, t
    assert kept < len(extra_T) / 2


def test_every_second_layer_may_be_wide() -> None:
    options = {"back": 1, "wide_every": 2, "wide_back": 5}
    model = tiny(n_layers=4, mechanism="none", pattern="chunk_window", pattern_options=options)
    assert [repr(rules[0]) for rules in model.rules()][1::2] == ["ChunkWindow(back=5)"] * 2
    assert [rules[0].back for rules in model.rules()] == [1, 5, 1, 5]
    narrow = tiny(n_layers=4, mechanism="none", pattern="chunk_window", pattern_options={"back": 1})
    assert model.flops_per_token(60, 0.2) > narrow.flops_per_token(60, 0.2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"wide_every": 2}, "wide_back: expected with the other one"),
        ({"wide_back": 20}, "wide_every: expected with the other one"),
        ({"wide_every": 2, "wide_back": 3}, "wide_back=3: expected back=16 chunks or more"),
        ({"wide_every": 3, "wide_back": 20}, "wide_every=3: expected at most model.n_layers=2"),
        ({"back": -1}, "back=-1: expected 0 or more"),
    ],
)
def test_what_no_window_of_chunks_is(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        TransformerConfig(2, 2, 16, 50, pattern="chunk_window", pattern_options=options)
