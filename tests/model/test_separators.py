"""The text's own separators as extra tokens (SepLLM): pair by pair, beside marks that are given, and in generation."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model import MetaTransformer, TransformerConfig, generate, mechanisms
from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns import Causal, SinksWindow, SinksWindowMeta
from lightning_metatok.model.memory import Memory, cache_of
from tests.model.helpers import VOCABULARY, batch, tiny
from tests.model.test_memory import step_by_step

IDS = (3, 7, 11, 13, 20, 21, 30)
N, W, T = 2, 4, 21
SEPLLM: dict[str, Any] = {"pattern": "sinks_window_meta", "pattern_options": {"n": N, "w": W}, "mechanism": "none"}
ANCHORS: dict[str, Any] = {"pattern": "chunk_meta", "pattern_options": {"extra_sees": "own"}, "mechanism": "none"}


def separated(**options: Any) -> MetaTransformer:
    """A tiny model whose separators are `IDS`."""
    model = tiny(separators=["."], **options)
    model.know_separators(IDS)
    return model


def none_of(tokens_BT: Tensor) -> Tensor:
    """No meta-tokens."""
    return torch.zeros_like(tokens_BT, dtype=torch.bool)


class Table(Causal):
    """A rule that is a table."""

    needs_mask = True

    def __init__(self, table_BTT: Tensor) -> None:
        self.table_BTT = table_BTT

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        return self.table_BTT[:, q.place[0], k.place[0]]


def test_the_mask_is_sepllms_pair_by_pair_in_outputs_and_gradients() -> None:
    tokens_BT = batch()[0]
    table_BTT = torch.zeros(len(tokens_BT), T, T, dtype=torch.bool)
    for b, i, j in itertools.product(range(len(tokens_BT)), range(T), range(T)):
        table_BTT[b, i, j] = j <= i and (j < N or i - j < W or int(tokens_BT[b, j]) in IDS)
    found = []
    for model in (separated(**SEPLLM).double(), tiny(mechanism="none", attention_backend="reference").double()):
        if model.separators_V is None:
            model.pattern = Table(table_BTT)
        out = model(tokens_BT)
        out.sin().sum().backward()
        found.append([out, *(parameter.grad for parameter in model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("mechanism", mechanisms.MECHANISMS)
@torch.no_grad()
def test_a_separator_is_to_attentions_what_a_meta_token_is(mechanism: str) -> None:
    tokens_BT, given_BT = batch()
    own_BT = torch.isin(tokens_BT, torch.tensor(IDS))
    model, other = separated(mechanism=mechanism, pattern="chunk_meta"), tiny(mechanism=mechanism, pattern="chunk_meta")
    torch.testing.assert_close(model(tokens_BT), other(tokens_BT, own_BT), atol=0, rtol=0)
    torch.testing.assert_close(model(tokens_BT, given_BT), other(tokens_BT, given_BT | own_BT), atol=0, rtol=0)


@torch.no_grad()
def test_only_meta_tokens_that_are_given_enter_as_zeros() -> None:
    tokens_BT, given_BT = batch()
    model = separated(**SEPLLM)
    entering: list[Tensor] = []
    model.dropout.register_forward_hook(lambda _, __, out: entering.append(out))
    model(tokens_BT, given_BT, zero_meta_embedding=True)
    own_BT = torch.isin(tokens_BT, torch.tensor(IDS))
    assert torch.equal(entering[0].abs().amax(dim=-1) == 0, given_BT & ~own_BT)


@pytest.mark.parametrize("shape", [SEPLLM, ANCHORS, {**SEPLLM, "mechanism": "meta"}], ids=str)
@torch.no_grad()
def test_generation_sees_what_training_saw_while_it_forgets(shape: dict[str, Any]) -> None:
    model, (tokens_BT, given_BT) = separated(**shape), batch(length=60, fraction=0.05)
    for mask_BT in (none_of(tokens_BT), given_BT):
        full = model(tokens_BT, mask_BT)
        torch.testing.assert_close(step_by_step(model, Memory(), (tokens_BT, mask_BT)), full, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_what_is_kept_is_sinks_separators_and_the_window() -> None:
    model, page = separated(**SEPLLM), 4
    tokens_1T = batch(n=1, length=60)[0]
    cache = cache_of(model, None, page=page)
    for t in range(60):
        model(tokens_1T[:, t : t + 1], cache=cache)
    assert cache.facts is not None
    n_separators = int(torch.isin(tokens_1T, torch.tensor(IDS)).sum())
    assert cache.facts.n <= N + n_separators + W + 2 * page < 60
    assert cache.length == 60


@torch.no_grad()
def test_a_prompt_with_padding_before_it_goes_on_as_it_does_alone() -> None:
    model = separated(**SEPLLM)
    tokens_BT = batch(n=2)[0]
    tokens_BT[0, :6] = IDS[0]
    both_BT = generate(model, tokens_BT, max_new_tokens=6, temperature=0, padding_B=torch.tensor([6, 0]))
    alone_1T = generate(model, tokens_BT[:1, 6:], max_new_tokens=6, temperature=0)
    assert torch.equal(both_BT[:1, 6:], alone_1T)


def test_known_special_cases() -> None:
    facts = Facts.of(T, batch()[1])
    causal, streaming = (rule.mask(facts).expand(3, -1, -1) for rule in (Causal(), SinksWindow(n=N, w=W)))
    assert torch.equal(SinksWindowMeta(n=N, w=T).mask(facts), causal)
    nothing = Facts.of(T, none_of(batch()[0]))
    assert torch.equal(SinksWindowMeta(n=N, w=W).mask(nothing), streaming)


def test_how_many_keys_are_seen_is_counted_in_closed_form() -> None:
    facts = Facts.of(200, torch.arange(200)[None] % 4 == 3)
    counted = SinksWindowMeta(n=N, w=W).mask(facts).sum() / 200
    assert SinksWindowMeta(n=N, w=W).mean_keys(200, 0.25) == pytest.approx(float(counted), rel=0.02)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mechanism": "none"}, r"model\.separators=\['\.'\]: expected none with model\.pattern='causal'"),
        ({"mechanism": "meta", "recurrence": "rmt"}, r"model\.separators=\['\.'\]: expected none, as memory"),
        ({"separators": [".", ""], **SEPLLM}, r"expected a list of texts, none of them empty"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], says: str) -> None:
    shape = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": VOCABULARY}
    with pytest.raises(UserError, match=says):
        TransformerConfig(**{**shape, "separators": ["."], **options})
