"""Run folders of earlier versions stand beside new ones: their old keys are read as what they mean now."""

from pathlib import Path

import pytest
import yaml

from lightning_metatok.errors import UserError
from lightning_metatok.report.runs import conditions, read_run
from tests.written_runs import write_run


def rewrite(folder: Path, **model: object) -> Path:
    """Put these keys of the model in the folder's config.yaml, in place of the mechanism."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"] = {**{k: v for k, v in config["model"].items() if k != "mechanism"}, **model}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_an_old_run_and_a_new_one_of_the_same_arm_are_two_seeds_of_one_condition(tmp_path: Path) -> None:
    new = write_run(tmp_path / "new", "meta", seed=1, values=[0.5])
    old = write_run(tmp_path / "old", "meta", seed=2, values=[0.6])
    rewrite(old, meta_attention=True, meta_over="meta", meta_layers=None, meta_shared=False, meta_fill=None)
    (one,) = conditions([read_run(new), read_run(old)])
    assert one.label == "meta"
    assert len(one.runs) == 2
    assert read_run(old).config["model.mechanism"] == "meta"
    assert not [key for key in read_run(old).config if key in ("model.meta_attention", "model.meta_over")]


def test_options_of_a_mechanism_are_no_setting_beside_the_arm(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "meta", seed=1, values=[0.5])
    rewrite(run, mechanism="meta", mechanism_options={"layers": [1], "fill": None}, pattern="causal")
    assert not [key for key in read_run(run).settings() if "mechanism" in key or "pattern" in key]
    assert read_run(run).config["model.mechanism_options"] == {"layers": [1], "fill": None}


def test_an_old_key_with_a_wrong_value_is_named(tmp_path: Path) -> None:
    run = rewrite(write_run(tmp_path / "run", "meta", seed=1, values=[0.5]), meta_over="some")
    with pytest.raises(UserError, match=r"run/config\.yaml: model\.meta_over='some': expected one of meta, all"):
        read_run(run)


def test_slots_in_the_old_key_are_the_options_of_the_placement(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "meta", seed=1, values=[0.5])
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] |= {"meta_placement": "fixed", "meta_positions": [0, 5]}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert read_run(run).config["data.meta_placement_options"] == {"slots": [0, 5]}
    assert "data.meta_positions" not in read_run(run).config
