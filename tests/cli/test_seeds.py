"""What of a run is drawn with which seed: weights, data and dropout, together or each with its own."""

from pathlib import Path

import pytest
import torch

from lightning_metatok.cli.training import TrainingCLI, quiet
from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenLM
from tests.system.helpers import run, succeed

CONF = Path(__file__).resolve().parents[2] / "conf"
BASES = ["debug.yaml", "task/list_recall_nano.yaml"]


class BuildOnly(TrainingCLI):
    """The command line up to the point where model and data are built."""

    def instantiate_trainer(self, **kwargs: object) -> None:  # type: ignore[override]
        """Build no trainer, and write nothing."""


def built(base: str, arm: str, *options: str) -> TrainingCLI:
    """Model and data of these files and options."""
    quiet()
    vocabulary = ["--data.vocab_size=512"] if base == "debug.yaml" else []
    files = [f"--config={CONF / base}", f"--config={CONF / 'arm' / f'{arm}.yaml'}"]
    return BuildOnly("fit", [*files, "--trainer.accelerator=cpu", *vocabulary, *options])


def weights(cli: TrainingCLI) -> dict[str, torch.Tensor]:
    """What its model begins with."""
    assert isinstance(cli.model, MetaTokenLM)
    return cli.model.model.state_dict()


@pytest.mark.parametrize("base", BASES)
def test_one_seed_gives_plain_and_meta_one_start_the_marks_row_included(base: str) -> None:
    plain, meta, other = (
        weights(built(base, arm, f"--seed_everything={seed}")) for arm, seed in (("plain", 5), ("meta", 5), ("meta", 6))
    )
    for name in plain:
        assert torch.equal(plain[name], meta[name]), name
    a, b = plain["embedding.weight"].flatten(), other["embedding.weight"].flatten()
    assert torch.corrcoef(torch.stack([a, b]))[0, 1].abs() < 0.05, "two seeds have nothing in common"


@pytest.mark.parametrize("base", BASES)
def test_seeds_of_weights_and_data_are_that_of_everything_until_they_are_named(base: str) -> None:
    usual, varied, moved = (
        built(base, "meta", *options)
        for options in (
            ["--seed_everything=5"],
            ["--seed_everything=7", "--seed.weights=5", "--seed.data=9"],
            ["--seed_everything=5", "--seed.data=9"],
        )
    )
    assert (usual.datamodule.seed, varied.datamodule.seed, moved.datamodule.seed) == (5, 9, 9)
    for name, weight in weights(usual).items():
        assert torch.equal(weight, weights(varied)[name])
        assert torch.equal(weight, weights(moved)[name])


def test_two_seeds_of_the_data_are_refused() -> None:
    with pytest.raises(UserError, match=r"^data\.seed=3, seed\.data=9: expected one of them alone, or the same$"):
        built("debug.yaml", "meta", "--data.seed=3", "--seed.data=9")
    assert built("debug.yaml", "meta", "--data.seed=9", "--seed.data=9").datamodule.seed == 9
    assert built("debug.yaml", "meta", "--data.seed=3").datamodule.seed == 3


@pytest.mark.parametrize("name", ["weights", "data", "dropout"])
def test_a_seed_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"^seed\.{name}=-1: expected a seed from 0 to 2\^63 - 1$"):
        built("debug.yaml", "meta", f"--seed.{name}=-1")


@pytest.mark.slow
def test_a_sweep_crosses_seeds_of_weights_and_data(tmp_path: Path) -> None:
    axes = "grid: {seed.weights: [1, 2], seed.data: [1, 2, 3]}"
    file = tmp_path / "seeds.yaml"
    file.write_text(f"configs: [{CONF / 'debug.yaml'}]\n{axes}\nseeds: [7]\n", encoding="utf-8")
    out = succeed("sweep", "plan", file)
    assert "6 runs" in out
    file.write_text(f"configs: [{CONF / 'debug.yaml'}]\ngrid: {{seed.weight: [1, 2]}}\nseeds: [7]\n", encoding="utf-8")
    refused = run("sweep", "plan", file)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "seed.weights" in refused.err
