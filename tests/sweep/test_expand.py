"""The runs of a sweep: all combinations, in a fixed order, each known by what it does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lightning_metatok.errors import UserError
from lightning_metatok.sweep import PlannedRun, expand, read_spec
from lightning_metatok.sweep.expand import code_version

FILES: dict[str, Mapping[str, Any]] = {"base.yaml": {"model": {"d_model": 64}}, "plain.yaml": {"data": {"x": 0}}}


def runs(
    change: Mapping[str, Any] | None = None, code: str = "c", files: Mapping[str, Any] = FILES
) -> list[PlannedRun]:
    """Runs of a small sweep with changes."""
    content: dict[str, Any] = {
        "configs": ["base.yaml"],
        "set": {"trainer.max_steps": 10},
        "arms": {"plain": {"configs": ["plain.yaml"]}, "meta": {"set": {"model.meta_attention": True}}},
        "grid": {"model.position": ["rotary", "none"]},
        "seeds": [1, 2],
    }
    return expand(read_spec({**content, **(change or {})}, "x.yaml"), code, lambda path: files[path])


def test_every_combination_is_there_once_and_seeds_vary_fastest() -> None:
    found = [tuple(run.axes.values()) for run in runs()]
    assert found == [(a, p, s) for a in ("plain", "meta") for p in ("rotary", "none") for s in (1, 2)]


def test_keys_in_one_zip_group_go_together() -> None:
    found = runs({"arms": {}, "grid": {}, "zip": [{"model.d_model": [64, 128], "model.n_heads": [2, 4]}], "seeds": [1]})
    assert [(r.options["model.d_model"], r.options["model.n_heads"]) for r in found] == [(64, 2), (128, 4)]


def test_skip_leaves_out_what_matches_all_of_its_keys() -> None:
    found = runs({"skip": [{"arm": "plain", "model.position": "none"}, {"seed_everything": [2, 3]}]})
    assert [tuple(run.axes.values()) for run in found] == [
        ("plain", "rotary", 1),
        ("meta", "rotary", 1),
        ("meta", "none", 1),
    ]


def test_arguments_are_what_a_user_would_type() -> None:
    assert runs({"grid": {"model.meta_layers": [[0, 1]]}})[0].arguments() == [
        "--config=base.yaml",
        "--config=plain.yaml",
        "--trainer.max_steps=10",
        "--model.meta_layers=[0, 1]",
        "--seed_everything=1",
    ]


def test_the_id_follows_what_files_say_options_and_code_and_nothing_else() -> None:
    first = {run.id for run in runs()}
    assert len(first) == 8
    renamed = {"base.yaml": FILES["base.yaml"], "other.yaml": FILES["plain.yaml"]}
    arms = {"plain": {"configs": ["other.yaml"]}, "meta": {"set": {"model.meta_attention": True}}}
    assert {run.id for run in runs({"arms": arms}, files=renamed)} == first
    assert {run.id for run in runs({"minutes": 3.0, "resources": {"minutes": 9}})} == first
    assert not first & {run.id for run in runs(code="d")}
    assert not first & {run.id for run in runs({"set": {"trainer.max_steps": 11}})}
    assert not first & {run.id for run in runs(files={**FILES, "base.yaml": {"model": {"d_model": 65}}})}


def test_names_are_safe_as_files_and_short() -> None:
    found = runs({"grid": {"data.corpus": ["/a b/../c.jsonl", "x" * 300]}})
    for run in found:
        assert "/" not in run.name
        assert " " not in run.name
        assert len(run.name) < 100
    assert len({run.name for run in found}) == len(found)


def test_two_equal_runs_and_an_empty_sweep_are_refused() -> None:
    with pytest.raises(UserError, match="are the same run; expected values that differ"):
        runs({"arms": {"a": {}, "b": {}}})
    with pytest.raises(UserError, match="every run is left out"):
        runs({"skip": [{"seed_everything": [1, 2]}]})


def test_the_version_of_the_code_follows_its_sources_alone(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("1")
    before = code_version(package)
    (package / "a.pyc").write_text("2")
    assert code_version(package) == before
    (package / "a.py").write_text("2")
    assert code_version(package) != before
