"""Patterns: each draws itself as in its docstring, its key ranges cover its mask, a row is the same in any pass."""

import inspect
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_metatok.errors import UserError
from lightning_metatok.model import KVCache
from lightning_metatok.model.attention import patterns
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import (
    Bidirectional,
    Blockwise,
    ByRow,
    Causal,
    ChunkMeta,
    ChunkWindow,
    Dilated,
    Extra,
    Gist,
    MetaToMeta,
    Pattern,
    PrefixLM,
    Prompt,
    SameDocument,
    Sinks,
    SinksWindow,
    SinksWindowMeta,
    Window,
    WindowMeta,
)
from tests.model.helpers import batch, tiny

DRAWN: list[Pattern] = [
    Causal(),
    SameDocument(),
    Window(w=3),
    WindowMeta(w=2),
    ChunkMeta(),
    ChunkWindow(back=1),
    Gist(),
    SinksWindow(n=1, w=2),
    SinksWindowMeta(n=1, w=2),
    Dilated(chunk=2).at(1, 2),
    Blockwise(block=2),
    Bidirectional(),
    PrefixLM(),
    Prompt(),
    Extra(),
    MetaToMeta(),
    Sinks(n=1),
    ByRow(Causal(), Causal() & Extra()),
]
RULES: list[Pattern] = [
    *DRAWN,
    *(
        patterns.build(name) for name in patterns.PATTERNS if patterns.PATTERNS[name] not in map(type, DRAWN)
    ),  # those stand in DRAWN
    Window(w=1),
    Window(w=100),
    WindowMeta(w=1),
    *(WindowMeta(w=2, extra_sees=sees) for sees in ("own", "all")),
    *(ChunkMeta(extra_sees=sees) for sees in ("own", "all")),
    *(ChunkWindow(back=1, extra_sees=sees, read=read) for sees in ("own", "earlier", "all") for read in (True, False)),
    ChunkWindow(back=0),
    *(Dilated(chunk=chunk).at(layer, 9) for chunk, layer in ((2, 0), (2, 2), (3, 1), (500, 8))),
    *(Blockwise(block=block) for block in (1, 3, 500)),
    *(SinksWindowMeta(n=n, w=w) for n, w in ((0, 1), (3, 1), (0, 500))),
    Sinks(n=0),
    Causal() & MetaToMeta(),
    Causal() & SameDocument(),
    Window(w=2) | (Causal() & Extra()),
    (Window(w=3) | (Causal() & (Extra() | Sinks(n=2)))) & SameDocument(),
    ByRow(text=Window(w=2) | (Causal() & Extra()), extra=Window(w=4)),
]

CHUNKS = [ChunkWindow(back=back, extra_sees=sees) for back in (0, 3, 500) for sees in ("own", "earlier", "all")]


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    """Up to three samples, with extra tokens anywhere and documents that need not be next to each other."""
    n, length = draw(st.integers(1, 3)), draw(st.integers(1, 17))
    size = n * length
    extra = draw(st.none() | st.lists(st.booleans(), min_size=size, max_size=size))
    ids = draw(st.none() | st.lists(st.integers(-1, 3), min_size=size, max_size=size))
    return Facts.of(
        length,
        None if extra is None else torch.tensor(extra).view(n, length),
        None if ids is None else torch.tensor(ids).view(n, length),
        first=draw(st.integers(0, 3)),
    )


@pytest.mark.parametrize("rule", DRAWN, ids=repr)
def test_each_rule_draws_itself_as_its_docstring_does(rule: Pattern) -> None:
    drawn = str(rule)
    assert drawn in (inspect.getdoc(type(rule)) or "")
    rows = [row.split()[1:] for row in drawn.splitlines()[1:]]
    mask_TT = rule.mask(rule.example)[0]
    assert [[cell == "#" for cell in row] for row in rows] == mask_TT.tolist()


@pytest.mark.one_in(2)
@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(facts=facts(), data=st.data())
@settings(deadline=None, max_examples=60)
def test_key_ranges_of_any_block_of_rows_cover_its_mask(rule: Pattern, facts: Facts, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, facts.n - 1))
    rows = slice(first, data.draw(st.integers(first + 1, facts.n)))
    ranges = rule.ranges(facts, rows)
    inside_K = torch.zeros(facts.n, dtype=torch.bool)
    for start, end in ranges:
        assert 0 <= start < end <= facts.n
        inside_K[start:end] = True
    assert all(a[1] < b[0] for a, b in itertools.pairwise(ranges)), "ranges stand apart"
    assert not (rule.mask(facts, rows).any(dim=(0, 1)) & ~inside_K).any()
    assert rule.needed(facts, rows).dim() == 2, "never a table of queries and keys"


@pytest.mark.one_in(2)
@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(facts=facts(), data=st.data())
@settings(deadline=None, max_examples=30)
def test_a_row_alone_is_the_row_among_all(rule: Pattern, facts: Facts, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, facts.n - 1))
    whole = rule.mask(facts)
    assert torch.equal(rule.mask(facts, slice(row, row + 1)), whole[:, row : row + 1])


@pytest.mark.one_in(2)
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.causal], ids=repr)
@given(facts=facts(), data=st.data())
@settings(deadline=None, max_examples=30)
def test_rows_of_generation_are_those_of_the_full_pass(rule: Pattern, facts: Facts, data: st.DataObject) -> None:
    """A causal rule never asks for facts of later tokens: cut off behind the query, its row is the same."""
    row = data.draw(st.integers(0, facts.n - 1))
    cut = Facts(*(None if x is None else x[:, : row + 1] for x in (facts.place_BK, facts.extra_BK, facts.document_BK)))
    whole = rule.mask(facts)
    assert not whole[:, row, row + 1 :].any()
    assert torch.equal(rule.mask(cut, slice(row, row + 1))[:, 0], whole[:, row, : row + 1])


@pytest.mark.one_in(2)
@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.causal], ids=repr)
@given(facts=facts(), data=st.data())
@settings(deadline=None, max_examples=30)
def test_a_memory_may_forget_what_no_later_token_sees(rule: Pattern, facts: Facts, data: st.DataObject) -> None:
    """Later tokens see nothing that does not last, and with the rest alone their rows are what they were."""
    facts = Facts.of(facts.n, facts.extra_BK)  # a memory holds one document a sample
    cut = data.draw(st.integers(1, facts.n))
    whole = rule.mask(facts).expand(len(facts.is_extra_BK), -1, -1)
    lasts = rule.lasts(facts.take(slice(0, cut))).expand(len(whole), cut)
    assert not (whole[:, cut:, :cut] & ~lasts[:, None]).any()
    for sample, lasts_K in enumerate(lasts):
        mine = Facts.of(facts.n, facts.is_extra_BK[sample : sample + 1])
        kept_1K = torch.cat((lasts_K.nonzero().flatten(), torch.arange(cut, facts.n)))[None]
        rows = slice(int(lasts_K.sum()), kept_1K.shape[1])
        assert torch.equal(rule.mask(mine.take(kept_1K), rows)[0], rule.mask(mine)[0, cut:, kept_1K[0]])


@given(facts=facts(), cut=st.integers(0, 17))
@settings(deadline=None, max_examples=60)
def test_facts_that_grow_are_those_of_all_at_once(facts: Facts, cut: int) -> None:
    n, extra_BK = facts.n, facts.is_extra_BK
    cut = min(cut, n)
    parts = [
        Facts.of(end - first, extra_BK[:, first:end], first=first) for first, end in ((0, cut), (cut, n)) if end > first
    ]
    grown = parts[0] if len(parts) == 1 else parts[0].then(parts[1])
    whole = Facts.of(n, extra_BK)
    for name in ("place_BK", "chunk_BK", "in_document_BK", "behind_BK", "prompt_BK"):
        assert torch.equal(getattr(grown, name).expand_as(extra_BK), getattr(whole, name).expand_as(extra_BK)), name


@given(facts=facts(), i=st.integers(0, len(RULES) - 1), j=st.integers(0, len(RULES) - 1))
@settings(deadline=None, max_examples=60)
def test_rules_compose_as_masks_do(facts: Facts, i: int, j: int) -> None:
    one, other = RULES[i], RULES[j]
    assert torch.equal((one & other).mask(facts), one.mask(facts) & other.mask(facts))
    assert torch.equal((one | other).mask(facts), one.mask(facts) | other.mask(facts))
    assert torch.equal((one & one).mask(facts), one.mask(facts))


@given(facts=facts())
@settings(deadline=None, max_examples=60)
def test_sinks_are_the_first_tokens_of_each_document(facts: Facts) -> None:
    seen = (Sinks(n=2) & SameDocument()).mask(facts)
    for sample in seen.expand(len(facts.is_extra_BK if facts.document_BK is None else facts.document_BK), -1, -1):
        assert (sample.sum(dim=-1) <= 2).all()
        assert (sample.sum(dim=-1) >= 1).all()


def test_a_chunk_ends_with_its_extra_token_and_with_its_document() -> None:
    extra_1T = torch.tensor([[False, True, True, False, False, False, True, False]])
    facts = Facts.of(8, extra_1T, torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]]))
    assert facts.chunk_BK.tolist() == [[0, 0, 1, 2, 3, 3, 3, 4]]
    assert facts.in_document_BK.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3]]
    assert Facts.of(3).chunk_BK.tolist() == [[0, 0, 0]]


EXACT = [
    Causal(),
    Bidirectional(),
    *(Window(w=w) for w in (1, 5, 99)),
    *(Blockwise(block=block) for block in (1, 4, 99)),
]
EXACT += [Dilated(chunk=chunk).at(layer, 9) for chunk in (2, 3, 99) for layer in (0, 1, 3, 8)]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("rule", EXACT, ids=repr)
@pytest.mark.parametrize("n", [1, 4, 37])
def test_the_mean_number_of_keys_is_that_of_the_mask(rule: Pattern, n: int) -> None:
    counted = int(rule.mask(Facts.of(n)).sum()) / n
    assert rule.mean_keys(n, 0.1) == pytest.approx(counted)
    assert Pattern.mean_keys(rule, n, 0.1) == pytest.approx(counted)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("rule", [WindowMeta(w=8), WindowMeta(w=500), ChunkMeta(), *CHUNKS], ids=repr)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.25])
def test_keys_of_rules_with_extra_tokens_are_about_as_many_as_of_their_mask(rule: Pattern, share: float) -> None:
    assert rule.mean_keys(400, share) == pytest.approx(Pattern.mean_keys(rule, 400, share), rel=0.03)


def test_extra_keys_are_counted_at_even_distances() -> None:
    rule = Causal() & Extra()
    assert rule.mean_keys(20, 0.1) == pytest.approx((9 * 0 + 10 * 1 + 2) / 20)
    assert rule.mean_keys(2000, 0.1) == pytest.approx(100, rel=0.01)


def test_a_pattern_is_built_by_name_and_an_unknown_one_is_refused() -> None:
    assert repr(patterns.build("window", w=7)) == "Window(w=7)"
    assert [name for name in patterns.PATTERNS if not patterns.build(name).causal] == ["bidirectional", "prefix_lm"]
    with pytest.raises(UserError, match=r"model\.pattern='windw': expected one of .*did you mean 'window'"):
        patterns.build("windw")
    with pytest.raises(UserError, match=r"model\.pattern_options\.n=3: expected one of w for model.pattern='window'"):
        patterns.build("window", n=3)


# -- in a model


@pytest.mark.parametrize("arm", [{}, {"mechanism": "matched"}, {"mechanism": "none"}, {"position": "alibi"}], ids=str)
@torch.no_grad()
def test_a_window_as_long_as_the_text_is_causal(arm: dict[str, Any]) -> None:
    """Sums of float32 under a mask, in another order: 1e-5."""
    causal, inputs = tiny(**arm), batch()
    window = tiny(**arm, pattern="window", pattern_options={"w": 21})
    torch.testing.assert_close(window(*inputs), causal(*inputs), atol=1e-5, rtol=1e-5)
    narrow = tiny(**arm, pattern="window", pattern_options={"w": 4})
    assert not torch.allclose(narrow(*inputs)[:, 4:], causal(*inputs)[:, 4:], atol=1e-2)
    torch.testing.assert_close(narrow(*inputs)[:, :4], causal(*inputs)[:, :4], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_behind_a_window_nothing_reaches_a_token_but_through_layers_and_meta_attention() -> None:
    """Two layers of a window of 3 reach 4 tokens back; meta-attention reaches every earlier meta-token."""
    tokens_BT, meta_mask_BT = torch.arange(20)[None] % 7, torch.zeros(1, 20, dtype=torch.bool)
    changed = tokens_BT.clone()
    changed[0, 5] += 1
    meta_mask_BT[0, [5, 15]] = True
    options: dict[str, Any] = {"pattern": "window", "pattern_options": {"w": 3}}
    for mechanism, far in (("none", False), ("matched", False), ("meta", True)):
        model = tiny(**options, mechanism=mechanism)
        reach = 4 if mechanism != "matched" else 8  # two attentions a layer
        differs_T = (model(tokens_BT, meta_mask_BT) != model(changed, meta_mask_BT)).any(dim=-1)[0]
        assert differs_T[5 : 5 + reach + 1].all()
        assert bool(differs_T[15:].any()) == far, mechanism


@pytest.mark.parametrize("mechanism", ["none", "meta", "matched"])
@given(cuts=st.sets(st.integers(1, 20)), w=st.integers(1, 21))
@settings(deadline=None, max_examples=8)
@torch.no_grad()
def test_any_chunking_of_a_window_equals_the_full_pass(mechanism: str, cuts: set[int], w: int) -> None:
    model, (tokens_BT, meta_mask_BT) = tiny(mechanism=mechanism, pattern="window", pattern_options={"w": w}), batch()
    cache, borders = KVCache(2), [0, *sorted(cuts), 21]
    pieces = [model(tokens_BT[:, a:b], meta_mask_BT[:, a:b], cache=cache) for a, b in itertools.pairwise(borders)]
    full = model(tokens_BT, meta_mask_BT)
    torch.testing.assert_close(torch.cat(pieces, dim=1), full, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_every_backend_that_takes_masks_computes_a_window() -> None:
    options: dict[str, Any] = {"pattern": "window", "pattern_options": {"w": 5}}
    outs = [tiny(**options, attention_backend=name)(*batch()) for name in ("auto", "reference", "sdpa", "blocked")]
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mechanism", ["none", "matched", "own_qkv", "omninet"])
@pytest.mark.parametrize("documents", [False, True])
def test_an_encoder_depends_on_all_of_its_own_document(mechanism: str, documents: bool) -> None:
    model = tiny(mechanism=mechanism, pattern="bidirectional")
    (tokens_BT, extra_BT), embedded = batch(), list[torch.Tensor]()
    ids_BT = (torch.arange(21) // 7).expand(3, -1) if documents else None
    model.dropout.register_forward_hook(lambda _, __, out: embedded.append(out))
    out = model(tokens_BT, extra_BT, None, ids_BT)
    for t in (0, 10, 20):
        (gradient,) = torch.autograd.grad(out[:, t].square().sum(), embedded, retain_graph=True)
        own_T = torch.arange(21) // 7 == t // 7 if documents else torch.ones(21, dtype=torch.bool)
        assert torch.equal(gradient.any(dim=-1), own_T.expand(3, -1))


@torch.no_grad()
def test_every_backend_that_takes_masks_computes_an_encoder() -> None:
    options: dict[str, Any] = {"pattern": "bidirectional", "mechanism": "none"}
    outs = [tiny(**options, attention_backend=name)(*batch()) for name in ("auto", "reference", "sdpa", "blocked")]
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_encoder_keeps_nothing_and_predicts_no_next_token() -> None:
    model, (tokens_BT, extra_BT) = tiny(pattern="bidirectional", mechanism="none"), batch()
    with pytest.raises(UserError, match=r"'bidirectional' cannot generate.*: what a token sees comes later, too; exp"):
        model(tokens_BT, extra_BT, cache=KVCache(2))
    with pytest.raises(UserError, match=r"model.pattern='bidirectional' cannot predict the next token: a token sees"):
        model.config.check_causal()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "model.mechanism='meta' cannot see later tokens: meta-attention is causal among meta-tokens; expected"),
        ({"mechanism": "landmark"}, "model.mechanism='landmark' cannot see later tokens"),
        ({"mechanism": "unfold"}, "model.mechanism='unfold' cannot see later tokens"),
        ({"mechanism": "none", "position": "alibi"}, "model.position='alibi': expected one that does not transform"),
        ({"mechanism": "none", "position": "xpos"}, "model.position='xpos' cannot see later tokens: its scores grow"),
    ],
    ids=str,
)
def test_what_sees_earlier_tokens_alone_has_no_encoder_form(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        tiny(pattern="bidirectional", **change)
    assert str(caught.value).startswith(expected)


@given(facts=facts(), n=st.integers(0, 20), w=st.integers(1, 20))
@settings(deadline=None, max_examples=60)
def test_rules_that_are_equal_where_what_tells_them_apart_is_missing(facts: Facts, n: int, w: int) -> None:
    def same(one: Pattern, other: Pattern, facts: Facts = facts) -> None:
        assert bool((one.mask(facts) == other.mask(facts)).all()), (one, other)

    long = facts.n + int(facts.place_BK[:, 0].max()) + 1
    text = Facts.of(facts.n)
    alone = Facts.of(facts.n, facts.is_extra_BK & ~torch.nn.functional.pad(facts.is_extra_BK[:, :-1], (1, 0)), None)
    same(SinksWindow(n=n, w=long), Causal())
    same(SinksWindow(n=0, w=w), Window(w=w))
    same(WindowMeta(w=w), Window(w=w), text)
    same(ChunkMeta(), Causal(), text)
    same(Gist(), Causal(), text)
    same(Gist(), ChunkMeta(), alone)  # runs of one
    for sees in ("own", "earlier", "all"):
        same(WindowMeta(w=long, extra_sees=sees), Causal())
    by_hand = ByRow(text=WindowMeta(w=w), extra=Window(w=w))
    same(WindowMeta(w=w, extra_sees="own"), by_hand)
    same(WindowMeta(w=w, extra_sees="all"), ByRow(text=WindowMeta(w=w), extra=Causal()))


def test_what_extra_tokens_see_is_their_own_affair() -> None:
    """Loops over pairs: text sees the same whatever `extra_sees` is, extra tokens their own chunk, more, or all."""
    extra, c = [0, 0, 1, 0, 1, 0, 0, 1, 0], 0
    chunks = [c := c + (i > 0 and extra[i - 1]) for i in range(len(extra))]
    facts = Facts.of(9, torch.tensor([extra]).bool())
    for sees in ("own", "earlier", "all"):
        mask = ChunkMeta(extra_sees=sees).mask(facts)[0]
        for q, k in itertools.product(range(9), repeat=2):
            far = {"own": extra[k] and not extra[q], "earlier": extra[k], "all": extra[k] or extra[q]}[sees]
            assert bool(mask[q, k]) == (k <= q and bool(chunks[q] == chunks[k] or far)), (sees, q, k)
