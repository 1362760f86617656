"""Files and command lines of earlier versions parse to what they meant."""

from pathlib import Path
from typing import Any

import pytest

from lightning_metatok.cli.training import TrainingCLI
from lightning_metatok.cli.training_parser import quiet
from lightning_metatok.errors import UserError

CONF = Path(__file__).parents[2] / "conf"


class ParseOnly(TrainingCLI):
    """The command line up to the point where it would build the classes."""

    def instantiate_classes(self) -> None:
        """Build nothing."""


def mechanism(*args: str) -> tuple[str, dict[str, Any]]:
    quiet()
    model = ParseOnly("fit", [f"--config={CONF / 'base.yaml'}", *args]).config.as_dict()["model"]
    assert not [key for key in model if key.startswith("meta_")]
    return model["mechanism"], model["mechanism_options"]


@pytest.mark.slow
def test_options_and_files_in_old_keys(tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    old.write_text("model:\n  meta_attention: true\n  meta_over: meta\n  meta_layers: [1]\n  d_model: 64\n")
    some = f"--config={CONF / 'arm' / 'some-layers.yaml'}"
    for args, expected in (
        (["--model.meta_attention=false"], ("none", {})),
        (["--model.meta_attention", "false"], ("none", {})),
        (["--model.meta_over=all", "--model.meta_layers", "[1]"], ("matched", {"layers": [1]})),
        (["--model.meta_fill=-1e4"], ("meta", {"fill": -1e4})),
        ([some], ("meta", {"layers": [1, 3]})),
        ([some, "--model.meta_shared=true"], ("meta", {"layers": [1, 3], "shared": True})),
        ([some, "--model.mechanism_options.layers=[0]", "--model.meta_shared=true"],
         ("meta", {"layers": [0], "shared": True})),
        ([f"--config={old}"], ("meta", {"layers": [1]})),
        (["--config", str(old), "--model.meta_fill=-5"], ("meta", {"layers": [1], "fill": -5})),
        ([f"--config={old}", "--model.meta_layers=null"], ("meta", {})),
        ([f"--config={old}", f"--config={CONF / 'arm' / 'plain.yaml'}"], ("none", {})),
    ):  # fmt: skip
        assert mechanism(*args) == expected, args


def test_other_keys_of_an_old_file_count_and_wrong_ones_are_named(tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    old.write_text("model: {meta_attention: false, d_model: 96}\n")
    quiet()
    config = ParseOnly("fit", [f"--config={CONF / 'base.yaml'}", f"--config={old}"]).config
    assert (config.model.d_model, config.model.mechanism) == (96, "none")
    old.write_text("model: {meta_attention: false, d_modle: 96}\n")
    with pytest.raises(UserError, match=r"unknown key 'model\.d_modle'; did you mean 'model\.d_model'"):
        mechanism(f"--config={old}")
    old.write_text("model: {meta_over: some}\n")
    with pytest.raises(UserError, match=r"model\.meta_over='some': expected one of meta, all"):
        mechanism(f"--config={old}")


def test_slots_of_a_fixed_placement_in_the_old_key(tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    old.write_text("data: {meta_placement: fixed, meta_positions: [0, 5], batch_size: 3}\n")
    none = tmp_path / "none.yaml"
    none.write_text("data: {meta_placement: random, meta_positions: null}\n")
    fixed = "--data.meta_placement=fixed"
    quiet()
    for args, expected in (
        ([fixed, "--data.meta_positions=[0,5]"], ("fixed", {"slots": [0, 5]})),
        ([fixed, "--data.meta_positions", "[0,5]"], ("fixed", {"slots": [0, 5]})),
        ([f"--config={old}"], ("fixed", {"slots": [0, 5]})),
        ([f"--config={old}", "--data.meta_positions=[1]"], ("fixed", {"slots": [1]})),
        ([f"--config={old}", "--data.meta_placement_options.slots=[1]"], ("fixed", {"slots": [1]})),
        ([f"--config={old}", "--data.meta_placement=periodic"], ("periodic", {})),
        ([f"--config={none}"], ("random", {})),
        (["--data.meta_positions=null"], ("random", {})),
    ):
        data = ParseOnly("fit", [f"--config={CONF / 'base.yaml'}", *args]).config.as_dict()["data"]
        assert (data["meta_placement"], data["meta_placement_options"]) == expected, args
        assert "meta_positions" not in data
