"""Text in, text out: a continuation ends where the document does."""

import pytest
import torch
from torch.nn import functional as F

from lightning_metatok.data import InjectionRule, MetaTokenizer
from lightning_metatok.lit.sampling import complete, complete_all
from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.model.sampling import Sampling


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


def test_the_rule_puts_marks_into_the_continuation_too(tokenizer: MetaTokenizer) -> None:
    torch.manual_seed(0)
    config = TransformerConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=tokenizer.vocab_size, max_positions=64)
    options = {"rule": InjectionRule(placement="chunk_end", options={"c": 2}), "max_new_tokens": 9, "keep_meta": True}
    model, drawn = MetaTransformer(config), Sampling(temperature=1.0, seed=3)
    (done,) = complete_all(model, tokenizer, ["one"], drawn, meta_while_writing=True, **options)
    n_marks = done.text.count("<|meta|>")
    assert n_marks > 2
    assert n_marks == (len(tokenizer.encode("one")) + done.n_new - n_marks) // 2
    (prompt_alone,) = complete_all(model, tokenizer, ["one"], drawn, **options)
    assert "<|meta|>" not in prompt_alone.text


def test_marks_are_shown_on_request_alone(model: MetaTransformer, tokenizer: MetaTokenizer) -> None:
    rule = InjectionRule(fraction=0.5)
    hidden, shown = (
        complete(model, tokenizer, "one two", rule=rule, max_new_tokens=5, temperature=0, keep_meta=keep)
        for keep in (False, True)
    )
    assert "<|meta|>" in shown
    assert shown.replace("<|meta|>", "") == hidden
    assert "<|endoftext|>" not in shown


ONE = "<|endoftext|>one"


def test_prompts_end_by_a_stop_string_or_by_themselves_and_are_shown_as_they_are_written(
    model: MetaTransformer, tokenizer: MetaTokenizer
) -> None:
    shown: dict[int, str] = {}
    done = complete_all(
        model,
        tokenizer,
        ["", ONE, ONE],
        Sampling(temperature=0),
        max_new_tokens=40,
        stop=["thr"],
        show=lambda place, text: shown.update({place: shown.get(place, "") + text}),
    )
    assert [one.text for one in done] == ["one two ", " two ", " two "]
    assert [one.ended for one in done] == ["stop"] * 3
    assert [one.prompt for one in done] == ["", ONE, ONE]
    assert shown == {place: one.prompt + one.text for place, one in enumerate(done)}
    (free,) = complete_all(model, tokenizer, [ONE], Sampling(temperature=0), max_new_tokens=40)
    assert (free.text, free.ended, free.n_new) == (" two three", "document", len(tokenizer.encode(" two three")))
    (short,) = complete_all(model, tokenizer, [ONE], Sampling(temperature=0), max_new_tokens=1)
    assert (short.ended, short.n_new) == ("length", 1)


def test_each_prompt_has_its_own_draws_and_they_do_not_depend_on_the_others(
    model: MetaTransformer, tokenizer: MetaTokenizer
) -> None:
    hot = Sampling(temperature=3, seed=4)
    three, two = (
        [one.text for one in complete_all(model, tokenizer, [ONE] * n, hot, max_new_tokens=9)] for n in (3, 2)
    )
    assert len(set(three)) == 3
    assert three[:2] == two
