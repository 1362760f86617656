"""Models of transformers become starts of runs: the same function before the first step, whatever is added."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from lightning_metatok.data import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.export.families import FAMILIES, family_of
from lightning_metatok.export.read import read, write_start
from lightning_metatok.export.write import Trained, write
from lightning_metatok.lit import MetaTokenLM
from lightning_metatok.model import MetaTransformer
from tests.export.conftest import Make, prompts
from tests.export.test_export import CASES

EXACT = {"atol": 2e-5, "rtol": 1e-5}
ADDED: dict[str, dict[str, Any]] = {
    "none": {"mechanism": "none"},
    "meta": {"mechanism": "meta"},
    "some layers": {"mechanism": "meta", "mechanism_options": {"layers": [1]}},
    "matched": {"mechanism": "matched"},
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_theirs_before_the_first_step(name: str, added: str, hub_models: Path) -> None:
    start = read(str(hub_models / name), ADDED[added])
    assert start.model.config.mechanism == ADDED[added]["mechanism"]
    tokens_BT = prompts(start.tokenizer.meta_id)
    theirs = AutoModelForCausalLM.from_pretrained(hub_models / name, dtype="float32").eval()
    # Their row of the new id is one that nobody trained; ours is the mean of all, so theirs is given it.
    with torch.no_grad():
        theirs.get_input_embeddings().weight[start.tokenizer.meta_id] = start.model.embedding.weight[
            start.tokenizer.meta_id
        ]
    ours = start.model(tokens_BT, tokens_BT == start.tokenizer.meta_id)
    known = [id for id in range(299) if id != start.tokenizer.meta_id]
    torch.testing.assert_close(ours[..., known], theirs(tokens_BT).logits[..., known], **EXACT)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_read_can_be_written_again(name: str, hub_models: Path, tmp_path: Path) -> None:
    start = read(str(hub_models / name))
    family, reason = family_of(start.model.config)
    assert family is not None, reason
    assert family.name == {"mistral": "llama"}.get(name, name)
    trained = Trained(start.model, start.tokenizer, None, 0, Path("a/b/c.ckpt"))
    write(trained, tmp_path / "out", shape="stock")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="float32").eval()
    tokens_BT = prompts(start.tokenizer.meta_id)
    torch.testing.assert_close(theirs(tokens_BT).logits, start.model(tokens_BT), **EXACT)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("case", CASES)
def test_an_arm_comes_back_as_it_went(case: str, make: Make, tmp_path: Path) -> None:
    trained = make(**CASES[case])
    written = write(trained, tmp_path / "out")
    start = read(str(tmp_path / "out"))
    assert start.tokenizer.fingerprint() == trained.tokenizer.fingerprint()
    tokens_BT = prompts(trained.tokenizer.meta_id)
    mask_BT = tokens_BT == trained.tokenizer.meta_id
    expected = trained.model(tokens_BT, mask_BT)
    torch.testing.assert_close(start.model(tokens_BT, mask_BT), expected, **EXACT)
    if written.family is None:
        assert start.model.config == trained.model.config
        assert start.marks == {"fraction": 0.1, "placement": "random"}


@pytest.mark.parametrize(("name", "mechanism"), [("llama", "meta"), ("gpt_neox", "matched")])
def test_what_was_added_learns(name: str, mechanism: str, hub_models: Path) -> None:
    start = read(str(hub_models / name), {"mechanism": mechanism})
    tokens_BT = prompts(start.tokenizer.meta_id)
    logits = start.model(tokens_BT, tokens_BT == start.tokenizer.meta_id)
    logits.square().mean().backward()
    last = start.model.get_parameter("blocks.0.meta_attention.projections.out.weight")
    assert last.grad is not None
    assert last.abs().max() == 0
    assert last.grad.abs().max() > 0


def test_a_run_starts_from_it(hub_models: Path, tmp_path: Path) -> None:
    start = read(str(hub_models / "llama"), {"mechanism": "meta"})
    write_start(start, tmp_path / "start")
    told = yaml.safe_load((tmp_path / "start" / "config.yaml").read_text())
    model = MetaTokenLM(**told["model"])
    for key, weight in start.model.state_dict().items():
        assert torch.equal(model.model.state_dict()[key], weight)
    saved = MetaTokenizer.from_file(told["data"]["tokenizer"])
    assert saved.fingerprint() == start.tokenizer.fingerprint()
    assert {path.name for path in (tmp_path / "start").iterdir()} == {"start.ckpt", "tokenizer.json", "config.yaml"}


@pytest.mark.parametrize(
    ("added", "why"),
    [
        ({"mechanism": "landmark"}, "model.mechanism='landmark' cannot start unchanged: it does more than to add"),
        ({"mechanism": "meta", "mechanism_options": {"shared": True}}, "meta_attention has no projection of its own"),
    ],
)
def test_what_cannot_start_unchanged_says_so(added: dict[str, Any], why: str, hub_models: Path) -> None:
    with pytest.raises(UserError, match=why):
        read(str(hub_models / "llama"), added)


def test_a_model_that_cannot_be_read_is_named(hub_models: Path, tmp_path: Path) -> None:
    for name, change, why in (
        ("llama", {"model_type": "opt"}, r"architecture 'opt': expected one of gpt2, gpt_neox, llama, qwen2, mistral"),
        ("llama", {"model_type": "lamma"}, r"architecture 'lamma': expected a causal language model .* such as"),
        ("llama", {"mlp_bias": True}, r"config.json of llama: mlp_bias=True: expected False"),
        ("llama", {"hidden_act": "gelu"}, r"hidden_act='gelu': expected silu"),
        ("qwen2", {"use_sliding_window": True}, r"use_sliding_window=True: expected False"),
        ("gpt2", {"activation_function": "tanh"}, r"activation_function='tanh': expected one of gelu_new"),
        ("gpt2", {"vocab_size": 200}, r"tokenizer.json has ids up to 298, the weights 200 rows: this tokenizer is not"),
    ):
        folder = tmp_path / "changed"
        shutil.copytree(hub_models / name, folder)
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        with pytest.raises(UserError, match=why) as caught:
            read(str(folder))
        assert "\n" not in str(caught.value)
        shutil.rmtree(folder)
    (tmp_path / "no weights").mkdir()
    for file in ("config.json", "tokenizer.json"):
        shutil.copy(hub_models / "gpt2" / file, tmp_path / "no weights")
    for name, why in (
        (str(tmp_path / "nowhere"), "no such folder"),
        (str(tmp_path), "expected a folder of a Hugging Face model; config.json is missing"),
        (str(tmp_path / "no weights"), "cannot be loaded"),
        ("nobody/nothing", r"hf download nobody/nothing --local-dir DIR"),
    ):
        with pytest.raises(UserError, match=why) as caught:
            read(name)
        assert "\n" not in str(caught.value)


def test_shapes_of_others_cache_and_gather_as_ours_do(make: Make) -> None:
    """Shared heads, RMS norm, swiglu and parallel branches: generation with a cache is that without."""
    options = {"n_heads": 4, "n_kv_heads": 2, "norm_type": "rms", "activation": "swiglu", "parallel": True}
    model: MetaTransformer = make(**options).model
    from lightning_metatok.model.cache import KVCache

    tokens_BT = prompts(1)
    cache = KVCache(2)
    parts = [model(part, part == 1, cache=cache) for part in tokens_BT.split((4, 1, 7), dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(tokens_BT, tokens_BT == 1), **EXACT)
