"""A model of transformers with meta-tokens: its function before the first step, what is trained, its checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor
from transformers import AutoModelForCausalLM

from lightning_metatok.data import Batch
from lightning_metatok.data.batch import next_token_targets
from lightning_metatok.errors import UserError
from lightning_metatok.export.families import FAMILIES
from lightning_metatok.lit import MetaTokenLM
from lightning_metatok.lit.checkpoints.load import load_trained
from lightning_metatok.model import KVCache, TransformerConfig, build, generate
from lightning_metatok.model.adapted import AdaptedTransformer
from tests.conftest import REPOSITORY
from tests.system.helpers import succeed, write_corpus

SIZES = {"n_layers": 2, "n_heads": 4, "d_model": 16, "vocab_size": 304, "max_positions": 64}
META = 299
"""An id that no text of the bases has."""
EXACT = {"atol": 1e-5, "rtol": 1e-5}


def adapted(folder: Path, **options: Any) -> AdaptedTransformer:
    """A base with an adapter, ready to evaluate."""
    model = build(TransformerConfig(**{**SIZES, "base": str(folder), **options}), seed=0)
    assert isinstance(model, AdaptedTransformer)
    return model.eval()


def prompts() -> tuple[Tensor, Tensor]:
    """Two prompts of 12 tokens, and which of them are meta-tokens."""
    tokens_BT = torch.randint(2, 299, (2, 12), generator=torch.Generator().manual_seed(1))
    extra_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
    extra_BT[:, [3, 7]] = extra_BT[1, 5] = True
    return tokens_BT.masked_fill(extra_BT, META), extra_BT


@torch.no_grad()
def trained(model: AdaptedTransformer) -> AdaptedTransformer:
    """The same with everything that is trained somewhere else."""
    generator = torch.Generator().manual_seed(2)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model


@pytest.mark.one_in(3)
@pytest.mark.parametrize("weights", ["frozen", "lora", "all"])
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_it_starts_as_its_base_and_keeps_what_it_learns(name: str, weights: str, hub_models: Path) -> None:
    model = adapted(hub_models / name, base_weights=weights)
    theirs = AutoModelForCausalLM.from_pretrained(hub_models / name, dtype="float32").eval()
    rows = theirs.get_input_embeddings().weight
    rows[META] = rows.mean(dim=0)
    tokens_BT, extra_BT = prompts()
    expected = theirs(tokens_BT).logits[..., :META]
    torch.testing.assert_close(model(tokens_BT, extra_BT)[..., :META], expected, **EXACT)

    names = {name for name, weight in model.named_parameters() if weight.requires_grad}
    of_base = {name for name in names if name.startswith("base.")}
    assert bool(of_base) == (weights != "frozen")
    assert all(("lora_" in name) == (weights == "lora") for name in of_base)
    state = trained(model).state_dict()
    assert state.keys() == names
    whole = model(tokens_BT, extra_BT)
    assert (whole[..., :META] - expected).abs().max() > 0.01
    again = adapted(hub_models / name, base_weights=weights)
    again.load_state_dict(state)
    assert torch.equal(again(tokens_BT, extra_BT), whole)

    cache = KVCache(2)
    parts = zip(tokens_BT.split((4, 1, 7), dim=1), extra_BT.split((4, 1, 7), dim=1), strict=True)
    torch.testing.assert_close(torch.cat([model(*part, cache=cache) for part in parts], dim=1), whole, **EXACT)


@pytest.mark.parametrize("options", [{}, {"past": "mean", "mix": False}], ids=str)
@torch.no_grad()
def test_places_move_behind_the_blocks_of_a_base(options: dict[str, Any], hub_models: Path) -> None:
    model = adapted(hub_models / sorted(FAMILIES)[0], mechanism="location", mechanism_options=options)
    tokens_BT, extra_BT = prompts()
    first = model(tokens_BT, extra_BT)
    whole, cache = trained(model)(tokens_BT, extra_BT), KVCache(2)
    assert (whole - first).abs().max() > 0.01
    parts = zip(tokens_BT.split((4, 1, 7), dim=1), extra_BT.split((4, 1, 7), dim=1), strict=True)
    torch.testing.assert_close(torch.cat([model(*part, cache=cache) for part in parts], dim=1), whole, **EXACT)


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_patterns_documents_and_dropped_positions_reach_the_base(name: str, hub_models: Path) -> None:
    tokens_BT, extra_BT = prompts()
    model = trained(adapted(hub_models / name, pattern="window", pattern_options={"w": 3}, mechanism="none"))
    other_BT = tokens_BT.clone()
    other_BT[:, 0] = 5
    change_BT = (model(tokens_BT) - model(other_BT)).abs().amax(dim=-1)
    assert change_BT[:, :3].min() > 0
    assert change_BT[:, 5:].max() == 0  # two layers of three tokens each

    model = trained(adapted(hub_models / name, pattern="window_meta", pattern_options={"w": 3}, mechanism="none"))
    only_BT = extra_BT & (torch.arange(12) == 3)
    other_BT = tokens_BT.clone()
    other_BT[:, 1] = 5
    change_BT = (model(tokens_BT, only_BT) - model(other_BT, only_BT)).abs().amax(dim=-1)
    assert change_BT[:, 6:].min() > 0  # by way of the meta-token at place 3

    seen = {"pattern": "window_meta", "pattern_options": {"w": 3}, "mechanism": "none", "separators": ["."]}
    model = trained(adapted(hub_models / name, **seen))
    text_BT = tokens_BT.masked_fill(extra_BT, 7)
    text_BT[:, 3] = 9
    model.know_separators([9])
    other_BT = text_BT.clone()
    other_BT[:, 1] = 5
    change_BT = (model(text_BT) - model(other_BT)).abs().amax(dim=-1)
    assert change_BT[:, 6:].min() > 0  # by way of the separator, which is read as the token that it is
    other_BT[:, 1], other_BT[:, 3] = text_BT[:, 1], 11
    assert (model(text_BT) - model(other_BT)).abs().amax(dim=-1)[:, 3:].min() > 0

    model = trained(adapted(hub_models / name))
    documents_BT, ids_BT = torch.arange(12).expand(2, -1) // 6, torch.arange(12).expand(2, -1) % 6
    apart = model(tokens_BT, extra_BT, ids_BT, documents_BT)
    torch.testing.assert_close(apart[:, 6:], model(tokens_BT[:, 6:], extra_BT[:, 6:]), **EXACT)

    dropped = model(tokens_BT, extra_BT, drop_positions="both")
    later_BT = torch.where(extra_BT, 20, torch.arange(12))
    torch.testing.assert_close(model(tokens_BT, extra_BT, later_BT, drop_positions="both"), dropped, **EXACT)
    assert (model(tokens_BT, extra_BT) - dropped).abs().max() > 1e-3


def test_the_loss_is_the_bases_at_step_0_and_lower_after_100_steps(hub_models: Path) -> None:
    torch.manual_seed(0)
    module = MetaTokenLM(**SIZES, base=str(hub_models / "llama"))
    tokens_BT, extra_BT = prompts()
    places = {"document_ids_BT": torch.zeros_like(tokens_BT), "position_ids_BT": torch.arange(12).expand(2, -1)}
    none_BT = torch.zeros_like(extra_BT)
    text_BT = tokens_BT.masked_fill(extra_BT, 7)
    plain = Batch(text_BT, next_token_targets(text_BT, none_BT), none_BT, **places)
    theirs = AutoModelForCausalLM.from_pretrained(hub_models / "llama", dtype="float32").eval()
    logits = theirs(text_BT).logits[:, :-1].flatten(0, 1)
    expected = F.cross_entropy(logits, text_BT[:, 1:].flatten())
    module.eval()
    torch.testing.assert_close(module.nll(plain).sum() / (plain.targets_BT >= 0).sum(), expected, **EXACT)

    marked = Batch(tokens_BT, next_token_targets(tokens_BT, extra_BT), extra_BT, **places)
    optimizer = torch.optim.AdamW([weight for weight in module.parameters() if weight.requires_grad], lr=3e-2)
    losses = []
    for _ in range(100):
        loss = module.train().nll(marked).sum() / (marked.targets_BT >= 0).sum()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.3  # what three meta-tokens can say to a frozen model


@pytest.mark.slow
def test_the_example_runs_and_its_adapter_is_a_file_of_its_own(hub_models: Path, tmp_path: Path) -> None:
    base, corpus = hub_models / "llama", write_corpus(tmp_path / "text.jsonl", count=30)
    options = ("--data.max_documents=30", "--trainer.max_steps=2", "--trainer.val_check_interval=2")
    small = (
        "--data.block_size=32",
        "--data.validation_blocks=2",
        "--ablation.multiples=[1]",
        "--trainer.precision=32-true",
    )
    config = REPOSITORY / "conf" / "retrofit" / "tiny_llama.yaml"
    succeed(
        "fit", f"--config={config}", f"--model.base={base}", f"--data.corpus={corpus}", f"--run_dir={tmp_path / 'run'}",
        "--model.optimizer.warmup_steps=0", *options, *small,
    )  # fmt: skip
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    names = torch.load(path, weights_only=True)["state_dict"]
    assert all("lora_" in name for name in names if name.startswith("model.base."))
    model, tokenizer, _ = load_trained(path)
    assert isinstance(model, AdaptedTransformer)
    assert tokenizer.meta_id == 299
    out_BT = generate(model, torch.tensor([[5, 299, 6]]), torch.tensor([[False, True, False]]), max_new_tokens=4)
    assert out_BT.shape == (1, 7)


def test_every_example_gives_options_that_exist() -> None:
    known = (REPOSITORY / "tests/cli/option_surface.txt").read_text().split()
    for path in (REPOSITORY / "conf" / "retrofit").glob("*.yaml"):
        for group in ("model", "data", "trainer"):
            for key in yaml.safe_load(path.read_text())[group]:
                assert any(option.startswith(f"{group}.{key}") for option in known), f"{path.name}: {group}.{key}"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"n_layers": 3}, "model.n_layers=3: expected 2, which is that of model.base"),
        ({"position": "learned"}, "model.position='learned': with model.base expected one that"),
        ({"mechanism": "landmark"}, "model.mechanism='landmark': with model.base expected one that adds branches"),
        (
            {"mechanism_options": {"shared": True}},
            "model.mechanism_options.shared=True: with model.base expected",
        ),
        ({"base": "/nowhere/at/all"}, "model.base=/nowhere/at/all: no such folder"),
        ({"base": "nobody/nothing"}, "hf download nobody/nothing"),
        ({"base": None, "base_weights": "all"}, "model.base_weights='all': expected model.base"),
        ({"base_weights": "some"}, "model.base_weights='some': expected one of frozen, lora, all"),
    ],
)
def test_what_cannot_be_adapted_says_why(options: dict[str, Any], why: str, hub_models: Path) -> None:
    with pytest.raises(UserError, match=why) as caught:
        adapted(hub_models / "llama", **options)
    assert "\n" not in str(caught.value)


def test_an_architecture_that_is_none_is_refused_with_those_that_are(tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM, T5Config

    T5Config(num_layers=2, num_heads=4, d_model=16).save_pretrained(tmp_path / "t5")
    small = MambaConfig(num_hidden_layers=2, hidden_size=16, vocab_size=300, state_size=2)
    MambaForCausalLM(small).save_pretrained(tmp_path / "mamba")
    for name in ("t5", "mamba"):
        with pytest.raises(UserError, match=r"expected a causal language model .* such as gpt2, gpt_neox, llama"):
            adapted(tmp_path / name)
