"""The pattern prefix_lm: which tokens see ahead, that nothing else leaks, and what is written is what was trained."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model import KVCache, MetaTransformer, generate
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import PrefixLM, Prompt, SameDocument
from lightning_metatok.model.recording import recorded
from tests.model.helpers import batch, tiny

PREFIX: dict[str, Any] = {"pattern": "prefix_lm"}
MODELS: list[dict[str, Any]] = [
    {"mechanism": "none"},
    {"mechanism": "matched"},
    {"mechanism": "own_qkv", "position": "learned"},
    {"mechanism": "omninet"},
    {"mechanism": "location", "mechanism_options": {"over": "prompt"}},
    {"mechanism": "location", "mechanism_options": {"over": "prompt", "past": "mean", "step": "free"}},
]
PROMPTS = (7, 4, 0)
"""Tokens before the first extra token of each row of `rows`."""


def rows() -> tuple[Tensor, Tensor]:
    """Tokens, and extra tokens of which the first stands at another place in each row, others behind it."""
    tokens_BT, extra_BT = batch()
    for sample, first in enumerate(PROMPTS):
        extra_BT[sample, :first], extra_BT[sample, first] = False, True
    return tokens_BT, extra_BT


def test_it_is_what_loops_over_pairs_say() -> None:
    generator = torch.Generator().manual_seed(0)
    for share in (0.0, 0.1, 0.3, 1.0):
        extra_BT = torch.rand(4, 17, generator=generator) < share
        ids_BT = torch.randint(3, (4, 17), generator=generator)  # documents may be interleaved
        for document_BT in (None, ids_BT):
            facts = Facts.of(17, extra_BT, document_BT)
            both, behind = ((rule & SameDocument()).mask(facts).expand(4, -1, -1) for rule in (PrefixLM(), Prompt()))
            for b, q, k in itertools.product(range(4), range(17), range(17)):
                own = [t for t in range(17) if document_BT is None or ids_BT[b, t] == ids_BT[b, q]]
                marks = [t for t in own if extra_BT[b, t]]
                close = marks[0] if marks else -1
                in_prompts = q < close and k < close
                assert bool(both[b, q, k]) == (k in own and (k <= q or in_prompts)), (b, q, k)
                assert bool(behind[b, q, k]) == (k in own and bool(marks) and k < close <= q), (b, q, k)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("options", MODELS, ids=str)
def test_a_prompt_depends_on_all_of_it_and_what_follows_on_nothing_later(
    options: dict[str, Any], documents: bool
) -> None:
    """By gradients: what a token that is scored says never depends on that which it must say."""
    model, embedded = tiny(**PREFIX, **options), list[Tensor]()
    tokens_BT, extra_BT = rows()
    if documents:
        tokens_BT, extra_BT = torch.cat((tokens_BT, tokens_BT), dim=1), torch.cat((extra_BT, extra_BT), dim=1)
    ids_BT = (torch.arange(42) // 21).expand(3, -1) if documents else None
    model.dropout.register_forward_hook(lambda _, __, out: embedded.append(out))
    out = model(tokens_BT, extra_BT, None, ids_BT)
    first = 21 if documents else 0
    for t in range(21):
        (gradient,) = torch.autograd.grad(out[:, first + t].square().sum(), embedded, retain_graph=True)
        for sample, close in enumerate(PROMPTS):
            last = close - 1 if t < close else t
            expected_T = (torch.arange(len(gradient[0])) >= first) & (torch.arange(len(gradient[0])) <= first + last)
            assert torch.equal(gradient[sample].any(dim=-1), expected_T), (sample, t)


def read(model: MetaTransformer, tokens_BT: Tensor, extra_BT: Tensor, *cuts: int, cache: KVCache) -> Tensor:
    """What is said in pieces that begin at `cuts`."""
    borders = [0, *cuts, tokens_BT.shape[1]]
    pieces = [model(tokens_BT[:, a:b], extra_BT[:, a:b], cache=cache) for a, b in itertools.pairwise(borders)]
    return torch.cat(pieces, dim=1)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("options", MODELS, ids=str)
@torch.no_grad()
def test_behind_its_prompt_a_row_in_any_pieces_is_the_full_pass(options: dict[str, Any]) -> None:
    """Sums of float32 in another order: 1e-4."""
    model, (tokens_BT, extra_BT) = tiny(**PREFIX, **options), rows()
    whole = model(tokens_BT, extra_BT)
    for cuts in ((8,), (9, 12), range(8, 21)):
        found = read(model, tokens_BT, extra_BT, *cuts, cache=KVCache(2, page=4))
        torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", MODELS, ids=str)
@torch.no_grad()
def test_padding_before_a_prompt_changes_nothing(options: dict[str, Any]) -> None:
    model, (tokens_BT, extra_BT) = tiny(**PREFIX, **options), rows()
    alone = model(tokens_BT[:1], extra_BT[:1])
    tokens_1T = torch.cat((torch.zeros(1, 4, dtype=torch.long), tokens_BT[:1]), dim=1)
    extra_1T, ids_1T = torch.nn.functional.pad(extra_BT[:1], (4, 0)), (torch.arange(25)[None] - 4).clamp(min=0)
    cache, borders = KVCache(2, padding_B=torch.tensor([4])), [0, 12, 13, 25]
    pieces = [
        model(tokens_1T[:, a:b], extra_1T[:, a:b], ids_1T[:, a:b], cache=cache) for a, b in itertools.pairwise(borders)
    ]
    torch.testing.assert_close(torch.cat(pieces, dim=1)[:, 4:], alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_prompt_that_comes_in_pieces_is_refused() -> None:
    """Its beginning was read as if nothing closed it; where nothing does, any pieces are the full pass."""
    model, (tokens_BT, extra_BT) = tiny(**PREFIX, mechanism="none"), rows()
    for cut in (1, 3, 7):
        cache = KVCache(2)
        model(tokens_BT[:, :cut], extra_BT[:, :cut], cache=cache)
        with pytest.raises(
            UserError, match=r"^model.pattern='prefix_lm': the first meta-token closes a prompt that sees"
        ):
            model(tokens_BT[:, cut:], extra_BT[:, cut:], cache=cache)
    nothing_BT = torch.zeros_like(extra_BT)
    found = read(model, tokens_BT, nothing_BT, 1, 3, 7, cache=KVCache(2))
    torch.testing.assert_close(found, model(tokens_BT, nothing_BT), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_greedy_writing_is_the_most_probable_of_the_full_pass() -> None:
    model, (tokens_BT, extra_BT) = tiny(**PREFIX, mechanism="none"), rows()
    written = generate(model, tokens_BT[:2, :9], extra_BT[:2, :9], max_new_tokens=6, temperature=0.0)
    extra_BT = torch.nn.functional.pad(extra_BT[:2, :9], (0, 6))
    assert torch.equal(model(written, extra_BT)[:, 8:-1].argmax(dim=-1), written[:, 9:])


@torch.no_grad()
def test_without_a_mark_it_is_causal_and_before_the_last_it_is_an_encoder() -> None:
    shape: dict[str, Any] = {"mechanism": "none"}
    model, causal, encoder = (tiny(**shape, pattern=name) for name in ("prefix_lm", "causal", "bidirectional"))
    tokens_BT, extra_BT = rows()
    assert torch.equal(Facts.of(21, extra_BT).prompt_BK.sum(dim=1), torch.tensor(PROMPTS))
    nothing_BT, last_BT = torch.zeros_like(extra_BT), torch.arange(21).expand(3, -1) == 20
    torch.testing.assert_close(model(tokens_BT, nothing_BT), causal(tokens_BT), atol=1e-5, rtol=1e-5)
    found = model(tokens_BT, last_BT)[:, :20]
    torch.testing.assert_close(found, encoder(tokens_BT[:, :20]), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, causal(tokens_BT)[:, :20], atol=1e-2)


@torch.no_grad()
def test_every_backend_that_takes_masks_computes_it() -> None:
    options: dict[str, Any] = {**PREFIX, "mechanism": "none"}
    outs = [tiny(**options, attention_backend=name)(*rows()) for name in ("auto", "reference", "sdpa", "blocked")]
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "model.mechanism='meta' cannot see later tokens: meta-attention is causal among meta-tokens; expected"),
        (
            {"mechanism": "location"},
            "model.mechanism='location' cannot see later tokens: its places move with the text",
        ),
        ({"mechanism": "none", "position": "alibi"}, "model.position='alibi': expected one that does not transform"),
        (
            {"mechanism": "omninet", "mechanism_options": {"attend": "kernel"}},
            "model.mechanism_options.attend='kernel': expected dense with model.pattern='prefix_lm'",
        ),
        (
            {"mechanism": "omninet", "mechanism_options": {"attend": "low_rank"}},
            "model.mechanism_options.attend='low_rank': expected dense with model.pattern='prefix_lm'",
        ),
    ],
    ids=str,
)
def test_what_has_no_form_for_it_is_refused(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        tiny(**PREFIX, **change)
    assert str(caught.value).startswith(expected)


def test_it_writes_but_predicts_no_text_and_is_not_probed() -> None:
    model = tiny(**PREFIX, mechanism="none")
    model.config.check_writes()
    with pytest.raises(
        UserError, match=r"^--x: model.pattern='prefix_lm' cannot predict the next token within a prompt"
    ):
        model.config.check_causal("--x: ")
    with (
        pytest.raises(UserError, match=r"'prefix_lm' cannot be recorded or changed inside: they count on rows"),
        recorded(model),
    ):
        pass
