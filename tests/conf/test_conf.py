"""Every file under conf/ is read by the parser of today, and trains.

The experiments run two steps of a small model on local text; an arm is laid over the demo.
"""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_metatok.cli.training import TrainingCLI, quiet
from lightning_metatok.model import MetaTransformer, TransformerConfig
from tests.system.helpers import curve, run, succeed, write_corpus

CONF = Path(__file__).resolve().parents[2] / "conf"
EXPERIMENTS = sorted(CONF.glob("*.yaml"))
ARMS = sorted((CONF / "arm").glob("*.yaml"))
CASES = [
    *(pytest.param([path], id=path.stem) for path in EXPERIMENTS),
    *(pytest.param([CONF / "base.yaml", path], id=f"base+{path.stem}") for path in ARMS),
]
SMALL = [
    "--model.n_layers=2",
    "--model.n_heads=2",
    "--model.d_model=32",
    "--model.vocab_size=512",
    "--model.max_positions=64",
    "--model.optimizer.warmup_steps=0",
    "--data.corpus_subset=null",
    "--data.tokenizer=null",
    "--data.vocab_size=512",
    "--data.block_size=64",
    "--data.batch_size=2",
    "--data.num_workers=0",
    "--data.validation_blocks=2",
    "--data.max_documents=40",
    "--trainer.max_steps=2",
    "--trainer.accumulate_grad_batches=1",
    "--trainer.val_check_interval=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.precision=32-true",
    "--ablation.windows=1",
    "--sample.max_new_tokens=2",
]


class ParseOnly(TrainingCLI):
    """The command line up to the point where it would build the classes."""

    def instantiate_classes(self) -> None:
        """Build nothing."""


@cache
def parse(*paths: Path) -> dict[str, Any]:
    """The whole configuration that these files make, laid over each other."""
    quiet()
    return ParseOnly("fit", [f"--config={path}" for path in paths]).config.as_dict()


def n_parameters(*paths: Path) -> int:
    """Parameters of the model of these files, built without memory."""
    options = dict(parse(*paths)["model"])
    for other in ("optimizer", "init_from", "compile"):
        del options[other]
    with torch.device("meta"):
        return MetaTransformer(TransformerConfig(**options)).n_parameters()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 100 kB of text."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "stories.jsonl", count=40)


@pytest.mark.parametrize("paths", CASES)
def test_a_config_trains_two_steps(paths: list[Path], corpus: Path, tmp_path: Path) -> None:
    configs = [f"--config={path}" for path in paths]
    succeed("fit", *configs, *SMALL, f"--data.corpus={corpus}", f"--run_dir={tmp_path}/run")
    assert [step for step, _ in curve(tmp_path / "run", "loss/train")] == [1, 2]
    assert len(curve(tmp_path / "run", "loss/val")) == 1
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    kept, dropped = (curve(tmp_path / "run", f"ablation/{name}_1x") for name in ("kept", "dropped"))
    assert len(kept) == 1
    assert len(dropped) == (0 if "plain.yaml" in [path.name for path in paths] else 1)


@pytest.mark.parametrize("paths", CASES)
def test_a_config_parses_and_its_parts_agree(paths: list[Path]) -> None:
    config = parse(*paths)
    assert config["model"]["vocab_size"] == config["data"]["vocab_size"]
    assert config["model"]["max_positions"] == config["data"]["block_size"]
    assert config["data"]["seed"] == config["seed_everything"]
    assert config["run_dir"] == f"runs/{paths[0].stem}"


@pytest.mark.parametrize("paths", [pytest.param([path], id=path.stem) for path in EXPERIMENTS])
def test_an_experiment_is_complete_alone_and_validates_within_the_run(paths: list[Path]) -> None:
    trainer = parse(*paths)["trainer"]
    n_batches = trainer["max_steps"] * trainer["accumulate_grad_batches"]
    assert n_batches % trainer["val_check_interval"] == 0, "the last validation is at the last step"
    assert n_batches >= 2 * trainer["val_check_interval"]


def test_there_are_configs_and_arms() -> None:
    assert {path.stem for path in EXPERIMENTS} >= {"base", "debug", "gpt2_small_c4", "gpt2_small_c4_ape"}
    assert {path.stem for path in ARMS} >= {"plain", "pause", "matched", "meta"}


def test_the_matched_arm_has_the_parameters_of_the_method_and_the_others_fewer() -> None:
    arms = {name: n_parameters(CONF / "base.yaml", CONF / "arm" / f"{name}.yaml")
            for name in ("plain", "pause", "matched", "meta")}  # fmt: skip
    assert arms["matched"] == arms["meta"] == n_parameters(CONF / "base.yaml")
    assert arms["plain"] == arms["pause"] < arms["meta"]
    model = parse(CONF / "base.yaml")["model"]
    # A second attention and its norm: q, k, v, o and one gain.
    assert arms["meta"] - arms["plain"] == model["n_layers"] * (4 * model["d_model"] ** 2 + model["d_model"])


def test_the_arms_differ_in_what_they_name_and_nothing_else() -> None:
    named = {("data", "meta_fraction"), ("model", "meta_attention"), ("model", "meta_over")}
    base = parse(CONF / "base.yaml")
    for path in ARMS:
        arm = parse(CONF / "base.yaml", path)
        differing = {
            (group, key) for group in ("data", "model", "trainer") for key in base[group]
            if arm[group][key] != base[group][key]
        }  # fmt: skip
        assert differing <= named
    assert parse(CONF / "base.yaml", CONF / "arm" / "meta.yaml") | {"config": None} == base | {"config": None}


def test_the_papers_models_have_the_papers_sizes() -> None:
    d, layers, vocabulary = 768, 12, 50304
    per_layer = 4 * d**2 + 4 * d**2 + 8 * d**2 + 3 * d  # two attentions, the MLP, three norms without bias
    expected = vocabulary * d + layers * per_layer + d
    assert n_parameters(CONF / "gpt2_small_c4.yaml") == expected == 151_908_096  # "152M"
    assert n_parameters(CONF / "gpt2_small_c4_ape.yaml") == expected + 1024 * d


def test_hub_configs_name_the_hub_when_it_cannot_be_reached(tmp_path: Path) -> None:
    outcome = run("fit", f"--config={CONF / 'gpt2_small_c4.yaml'}", f"--run_dir={tmp_path}/run")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "data.tokenizer='gpt2'" in outcome.err
    assert not (tmp_path / "run").exists()
