"""What `export` writes, transformers reads: the same logits, the same tokens, whatever the arm and the cache."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, StaticCache
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from lightning_metatok.data import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.export import MetaTokForCausalLM, insert_meta
from lightning_metatok.export.write import check_expressible, write
from lightning_metatok.model import TransformerConfig, generate, mechanisms, positions
from lightning_metatok.model.attention import patterns
from tests.conftest import REPOSITORY
from tests.export.conftest import Make, prompts

EXACT = {"atol": 1e-5, "rtol": 1e-5}
"""The same operations in float32, grouped otherwise."""


def arms() -> dict[str, dict[str, Any]]:
    """The options of every arm's model."""
    known = {field.name for field in fields(TransformerConfig)}
    found = {}
    for path in sorted((REPOSITORY / "conf" / "arm").glob("*.yaml")):
        options = (yaml.safe_load(path.read_text()) or {}).get("model") or {}
        found[path.stem] = {
            key: value for key, value in options.items() if key in known and "${" not in str(value) and key != "d_ff"
        }
        if found[path.stem].get("mechanism_options", {}).get("layers"):
            found[path.stem]["mechanism_options"] = {"layers": [1]}
        if "recurrence_options" in found[path.stem]:
            found[path.stem]["recurrence_options"] = {"segment": 4, "memory": 2}
    return found


ARMS = arms()
AHEAD = ("bidirectional", "prefix_lm")
"""Patterns that are not causal, with which text is not predicted and nothing exported."""
CASES = {
    **{name: arm for name, arm in ARMS.items() if arm.get("pattern") not in AHEAD},
    "learned": {"position": "learned", "mechanism": "none", "bias": True, "activation": "gelu_tanh"},
    "untied": {"mechanism": "none", "tied_head": False, "position_options": {"fraction": 0.5}},
    "window": {"pattern": "window", "pattern_options": {"w": 4}},
    **{name: {"pattern": name} for name in patterns.PATTERNS if name not in ("causal", "window", *AHEAD)},
    "annealed": {"mechanism": "own_qkv", "mechanism_options": {"anneal": [0, 9]}},
    "dropped": {"drop_positions": "both"},
    "shared layers": {"shared_layers": True},
}


def greedy(model: Any, tokens_BT: torch.Tensor, **options: Any) -> torch.Tensor:
    return model.generate(tokens_BT, max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0, **options)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("case", CASES)
def test_an_arm_survives_the_way_to_transformers(case: str, make: Make, tmp_path: Path) -> None:
    trained = make(**CASES[case])
    meta_id, ours = trained.tokenizer.meta_id, trained.model
    written = write(trained, tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokens_BT = prompts(meta_id)
    mask_BT = tokens_BT == meta_id
    torch.testing.assert_close(theirs(tokens_BT).logits, ours(tokens_BT, mask_BT), **EXACT)

    forbidden = (meta_id, *range(trained.tokenizer.vocab_size, ours.config.vocab_size))
    expected = generate(ours, tokens_BT, mask_BT, max_new_tokens=5, temperature=0, forbidden_ids=forbidden)
    assert torch.equal(greedy(theirs, tokens_BT), expected)

    is_theirs = type(theirs).__module__.startswith("transformers.")
    assert is_theirs == (written.family is not None)
    assert is_theirs == (not (tmp_path / "out" / "modeling_metatok.py").exists())


def test_plain_arms_need_no_class_of_ours(make: Make, tmp_path: Path) -> None:
    for case, kind in (("plain", "gpt_neox"), ("pause", "gpt_neox"), ("learned", "gpt2"), ("untied", "gpt_neox")):
        written = write(make(**CASES[case]), tmp_path / case)
        assert written.family is not None
        assert written.family.name == kind
        assert json.loads((tmp_path / case / "config.json").read_text())["model_type"] == kind


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", [name for name in positions.FAMILIES if name not in ("coupled", "rotary")])
def test_every_encoding_loads_with_its_own_weights(name: str, make: Make, tmp_path: Path) -> None:
    trained = make(position=name)
    write(trained, tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokens_BT = prompts(trained.tokenizer.meta_id)
    expected = trained.model(tokens_BT, tokens_BT == trained.tokenizer.meta_id)
    torch.testing.assert_close(theirs(tokens_BT).logits, expected, **EXACT)


CACHED = {
    "meta": {},
    "matched window": {"mechanism": "matched", "pattern": "window", "pattern_options": {"w": 4}},
    "some layers, t5": {"mechanism_options": {"layers": [1]}, "position": "t5"},
    "window_meta": {"mechanism": "none", "pattern": "window_meta", "pattern_options": {"w": 3}},
    "landmark, learned": {"mechanism": "landmark", "position": "learned"},
    "sepllm": {**ARMS["sepllm"], "pattern_options": {"n": 1, "w": 2}, "separators": list("aeiou")},
    "hils": {"mechanism": "hils", "mechanism_options": {"top": 1, "back": 1}},
    "location": {"mechanism": "location"},
    "places alone": {"mechanism": "location", "mechanism_options": {"past": "mean", "mix": False}},
}


@pytest.mark.parametrize("case", CACHED)
def test_every_cache_gives_the_logits_of_none_with_padding_on_the_left(case: str, make: Make) -> None:
    trained = make(**CACHED[case])
    model = MetaTokForCausalLM(_config(trained))
    model.model.load_state_dict(trained.model.state_dict())
    model.eval()
    meta_id = trained.tokenizer.meta_id
    tokens_BT, keep_BT = prompts(meta_id), torch.ones(2, 12, dtype=torch.long)
    tokens_BT[0, :4], keep_BT[0, :4] = 0, 0
    # A row with padding is what it is without.
    alone = trained.model(tokens_BT[:1, 4:], tokens_BT[:1, 4:] == meta_id)
    padded = model(tokens_BT, attention_mask=keep_BT).logits[:1, 4:]
    torch.testing.assert_close(padded, alone, **EXACT)

    def logits(**options: Any) -> torch.Tensor:
        told = {"output_logits": True, "return_dict_in_generate": True}
        return torch.stack(greedy(model, tokens_BT, attention_mask=keep_BT, **told, **options).logits, dim=1)

    expected = logits(use_cache=False)
    for cache in (
        DynamicCache(),
        DynamicCache(config=model.config),
        StaticCache(config=model.config, max_cache_len=20),
    ):
        torch.testing.assert_close(logits(past_key_values=cache), expected, **EXACT)
    torch.testing.assert_close(logits(cache_implementation="static"), expected, **EXACT)
    torch.testing.assert_close(logits(num_beams=2)[:2], logits(num_beams=2, use_cache=False)[:2], **EXACT)


def test_meta_tokens_that_come_later_find_those_in_the_cache(make: Make) -> None:
    trained = make()
    model = MetaTokForCausalLM(_config(trained)).eval()
    tokens_BT = prompts(trained.tokenizer.meta_id)
    whole, cache = model(tokens_BT).logits, DynamicCache(config=model.config)
    parts = [model(part, past_key_values=cache).logits for part in tokens_BT.split((2, 5, 1, 4), dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, **EXACT)


def test_a_cache_of_another_model_is_refused(make: Make) -> None:
    model = MetaTokForCausalLM(_config(make()))
    with pytest.raises(UserError, match=r"past_key_values has 3 layers: expected 5"):
        model(prompts(1), past_key_values=DynamicCache(config=_config(make(mechanism="none"))))


def test_the_loss_scores_no_meta_token(make: Make) -> None:
    trained = make()
    model = MetaTokForCausalLM(_config(trained)).eval()
    tokens_BT = prompts(trained.tokenizer.meta_id)
    labels_BT = tokens_BT.masked_fill(tokens_BT == trained.tokenizer.meta_id, -100)
    assert model(tokens_BT, labels=tokens_BT).loss == model(tokens_BT, labels=labels_BT).loss
    assert torch.isfinite(model(tokens_BT, labels=tokens_BT).loss)


def test_the_folder_has_its_tokenizer_card_and_code(make: Make, tmp_path: Path, tokenizer: MetaTokenizer) -> None:
    write(make(), tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "the old miller found <|meta|>three letters"
    assert theirs(text)["input_ids"] == tokenizer.encode_prompt(text)
    assert theirs.padding_side == "left"
    card = (tmp_path / "out" / "README.md").read_text()
    for part in ("library_name: transformers", "| mechanism | meta |", "AutoModelForCausalLM", "10% of a block"):
        assert part in card
    assert get_class_from_dynamic_module("modeling_metatok.MetaTokForCausalLM", tmp_path / "out") is MetaTokForCausalLM
    never = json.loads((tmp_path / "out" / "generation_config.json").read_text())["suppress_tokens"]
    assert never == [tokenizer.meta_id, 300, 301, 302, 303]


def test_meta_tokens_are_put_into_a_prompt_as_in_training() -> None:
    marks = {"fraction": 0.25, "placement": "periodic"}
    ids = insert_meta(range(10, 18), meta_id=1, marks=marks)
    assert ids.count(1) == 2
    assert [i for i in ids if i != 1] == list(range(10, 18))
    assert insert_meta([5, 1, 6], meta_id=1, marks=marks) == [5, 1, 6]
    assert insert_meta([5, 6], meta_id=1, marks=None) == [5, 6]


def test_what_cannot_be_expressed_says_why(make: Make, tmp_path: Path) -> None:
    coupled = TransformerConfig(n_layers=1, n_heads=1, d_model=4, vocab_size=9, position="coupled")
    with pytest.raises(UserError, match=r"position='coupled' cannot be exported: its position ids come from a task"):
        check_expressible(coupled)
    encoder = TransformerConfig(
        n_layers=1, n_heads=1, d_model=4, vocab_size=9, mechanism="none", pattern="bidirectional"
    )
    with pytest.raises(UserError, match=r"model.pattern='bidirectional' cannot predict the next token"):
        check_expressible(encoder)
    with pytest.raises(UserError, match=r"--shape=stock: model.mechanism='meta' is in no model of transformers"):
        write(make(), tmp_path / "out", shape="stock")
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match=r"expected a folder that does not exist yet, or is empty"):
        write(make(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_every_pattern_and_mechanism_is_tried() -> None:
    assert {case.get("mechanism", "meta") for case in CASES.values()} >= set(mechanisms.MECHANISMS)
    assert {case.get("pattern", "causal") for case in CASES.values()} == set(patterns.PATTERNS) - set(AHEAD)


def _config(trained: Any) -> Any:
    from lightning_metatok.export import MetaTokConfig

    return MetaTokConfig.of(trained.model.config, meta_token_id=trained.tokenizer.meta_id)
