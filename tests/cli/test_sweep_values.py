"""`sweep plan` reads values as `fit` does: numbers in any spelling, and what `fit` would refuse."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from lightning_metatok.cli import main
from lightning_metatok.cli.sweep_file import read_sweep
from lightning_metatok.cli.sweep_values import MOST_FOR_PAIRS, chosen
from lightning_metatok.sweep import PlannedRun, expand, read_spec
from lightning_metatok.sweep.collect import write_table
from tests.cli.test_sweep import refused, write


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder."""
    monkeypatch.chdir(tmp_path)


def sweep_file(tmp_path: Path, repository: Path, text: str) -> Path:
    """A sweep file as a user writes it, of tiny runs on text."""
    file = tmp_path / "x.yaml"
    file.write_text(f"configs: [{repository / 'conf' / 'debug.yaml'}]\n{text}")
    return file


@pytest.mark.parametrize(
    ("one", "other"), [("1e-3", "0.001"), ("1e-3", "'1e-3'"), ("1", "1.0"), ("1_000", "1e3"), ("'null'", "null")]
)
def test_spellings_of_one_number_are_one_run(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str], one: str, other: str
) -> None:
    file = sweep_file(tmp_path, repository, f"grid: {{model.optimizer.lr: [{one}, {other}]}}\n")
    assert "are the same run; expected values that differ" in refused(capsys, "plan", file)


@pytest.mark.parametrize("one", ["1e-3", "0.001", "'1e-3'", "1E-3", "[0.001, 7]"])
def test_skip_finds_a_number_in_every_spelling(tmp_path: Path, repository: Path, one: str) -> None:
    text = (
        f"grid: {{model.optimizer.lr: [1e-3, 3e-3], model.d_model: [16, 32]}}\nskip: [{{model.optimizer.lr: {one}}}]\n"
    )
    runs = read_sweep(sweep_file(tmp_path, repository, text), None).runs
    assert [tuple(run.axes.values())[:2] for run in runs] == [(0.003, 16), (0.003, 32)]


def test_a_label_says_which_key_a_number_is_of(tmp_path: Path, repository: Path) -> None:
    text = "grid: {model.optimizer.lr: [1e-3, '3e-3'], model.position: [rotary]}\n"
    runs = read_sweep(sweep_file(tmp_path, repository, text), None).runs
    assert [run.label for run in runs] == ["lr=0.001-rotary-s1337", "lr=3e_3-rotary-s1337"]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds: [-1]", "seeds: -1: expected a seed from 0 to 4294967295"),
        ("seeds: [1, 4294967296]", "seeds: 4294967296: expected a seed"),
        ("grid: {model.n_heads: [2, two]}", "two-s1337: model.n_heads=two: expected int"),
        ("set: {model.n_heads: 3}", "model.n_heads=3: expected a divisor of d_model"),
        ("zip: [{model.d_model: [32, 64], model.n_heads: [2, 3]}]", "model.n_heads=3: expected a divisor"),
        ("grid: {model.position: [rotary, rotry]}", "model.position='rotry': expected one of"),
        ("arms: {a: {}, b: {set: {model.optimizer.lr: -1}}}", "b-s1337: model.optimizer.min_lr"),
        ("set: {trainer.precision: half}", "trainer.precision='half': expected one of"),
        ("set: {data.block_size: 0}", "data.block_size=0: expected 1 or more"),
        ("grid: {model.d_model: [32, 36], model.n_heads: [2, 8]}", "model.n_heads=8: expected a divisor of d_model=36"),
    ],
)
def test_what_fit_would_refuse_is_refused_before_anything_runs(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    file = sweep_file(tmp_path, repository, text)
    assert message in refused(capsys, "plan", file)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["x.yaml"]


def test_what_a_task_would_refuse_is_refused(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, repository, grid={"data.task_options.n_lists": [[2, 2], [3, 2]]})
    assert "data.task_options.n_lists=[3, 2]: expected" in refused(capsys, "plan", file)


def planned(**grid: list[Any]) -> list[PlannedRun]:
    """Runs of a grid."""
    content = {"configs": ["a.yaml"], "grid": {f"model.{key}": values for key, values in grid.items()}, "seeds": [1, 2]}
    return expand(read_spec(content, "x.yaml"), "c", lambda path: {})


def test_each_value_is_tried_and_few_runs_are() -> None:
    runs = planned(a=list(range(30)), b=list(range(30)), c=[1, 2])
    tried = chosen(runs)
    for key, values in (("a", range(30)), ("b", range(30)), ("c", (1, 2))):
        assert {run.axes[f"model.{key}"] for run in tried} == set(values)
    assert len(tried) <= 30 + 30 + 2 + MOST_FOR_PAIRS
    assert len({run.id for run in tried}) == len(tried)
    few = planned(a=[1, 2], b=[3, 4])
    assert {(run.axes["model.a"], run.axes["model.b"]) for run in chosen(few)} == {(1, 3), (1, 4), (2, 3), (2, 4)}
    assert len(chosen(few)) == 4  # the seeds are not multiplied
    assert len(chosen(planned())) == 1


def test_columns_of_mixed_kinds_become_parquet(tmp_path: Path) -> None:
    mixed = {
        "a": [1, "none", None],
        "b": [0.1, None, 2],
        "c": ["x", "y", None],
        "d": [[1], "u", 2.5],
        "e": [10**30, 1, 2],
    }
    write_table(pd.DataFrame({**mixed, "f": [True, False, True], "g": [True, 0.5, "x"]}), tmp_path / "t.parquet")
    back = pd.read_parquet(tmp_path / "t.parquet")
    assert list(back["a"].dropna()) == ["1", "none"]
    assert list(back["b"].dropna()) == [0.1, 2.0]
    assert list(back["c"].dropna()) == ["x", "y"]
    assert list(back["d"]) == ["[1]", "u", "2.5"]
    assert list(back["e"]) == [str(10**30), "1", "2"]
    assert list(back["f"]) == [True, False, True]
    assert list(back["g"]) == ["true", "0.5", "x"]


def test_the_cases_of_the_reader(tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = yaml.safe_dump({"seeds": [1]}) + "set: {model.optimizer.lr: 1e-3}\n"
    assert main(["sweep", "plan", str(sweep_file(tmp_path, repository, text))]) == 0
    assert "1 runs" in capsys.readouterr().out
    (run,) = read_sweep(tmp_path / "x.yaml", None).runs
    assert run.options["model.optimizer.lr"] == 0.001
