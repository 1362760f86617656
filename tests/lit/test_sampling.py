"""Text in, text out: a continuation ends where the document does."""

import pytest
import torch
from torch.nn import functional as F

from lightning_metatok.data import InjectionRule, MetaTokenizer
from lightning_metatok.lit.sampling import complete
from lightning_metatok.model import MetaTransformer, TransformerConfig


@pytest.fixture(scope="module")
def tokenizer() -> MetaTokenizer:
    return MetaTokenizer.train(["one two three"], 270)


@pytest.fixture(scope="module")
def model(tokenizer: MetaTokenizer) -> MetaTransformer:
    """It has learnt one document by heart: nothing, "one two three", the end, and the end again after the end."""
    torch.manual_seed(0)
    config = TransformerConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=tokenizer.vocab_size, max_positions=64)
    model = MetaTransformer(config)
    eos = tokenizer.eos_id
    document_BT = torch.tensor([[eos, *tokenizer.encode("one two three"), eos, eos, eos]])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        logits_BTV = model(document_BT[:, :-1])
        F.cross_entropy(logits_BTV.flatten(0, 1), document_BT[:, 1:].flatten()).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("temperature", [0.0, 0.01])
def test_a_continuation_ends_with_its_document_and_the_end_is_not_shown(
    model: MetaTransformer, tokenizer: MetaTokenizer, temperature: float
) -> None:
    text = complete(model, tokenizer, "", max_new_tokens=40, temperature=temperature)
    assert text == "one two three"
    short = complete(model, tokenizer, "", max_new_tokens=1, temperature=temperature)
    assert "one two three".startswith(short)
    assert 0 < len(short) < len("one two three")


def test_an_end_that_the_user_wrote_is_shown(model: MetaTransformer, tokenizer: MetaTokenizer) -> None:
    text = complete(model, tokenizer, "<|endoftext|>one", max_new_tokens=40, temperature=0)
    assert text == "<|endoftext|>one two three"


def test_marks_are_shown_on_request_alone(model: MetaTransformer, tokenizer: MetaTokenizer) -> None:
    rule = InjectionRule(fraction=0.5)
    hidden, shown = (
        complete(model, tokenizer, "one two", rule=rule, max_new_tokens=5, temperature=0, keep_meta=keep)
        for keep in (False, True)
    )
    assert "<|meta|>" in shown
    assert shown.replace("<|meta|>", "") == hidden
    assert "<|endoftext|>" not in shown
