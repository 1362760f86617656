"""What a sweep knows of its runs, from the files, the processes and SLURM; and that two never work at one."""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lightning_metatok.errors import UserError
from lightning_metatok.sweep import PlannedRun, SweepFolder
from lightning_metatok.sweep.collect import collect, write_table
from lightning_metatok.sweep.folder import State, begin, end


def make(tmp_path: Path, n: int = 1) -> tuple[SweepFolder, list[PlannedRun]]:
    """A sweep of `n` runs that nobody started."""
    folder = SweepFolder(tmp_path / "sweep")
    runs = [PlannedRun(f"{i:010}", f"s{i}", {"arm": "meta", "seed_everything": i}, ("a.yaml",), {}) for i in range(n)]
    folder.write_plan(runs, "configs: [a.yaml]\n", "c", [])
    return folder, runs


def finish(folder: SweepFolder, name: str, code: int = 0, **values: Any) -> State:
    """As if a process had run it."""
    folder.run_folder(name).mkdir(parents=True, exist_ok=True)
    (folder.run_folder(name) / "metrics.jsonl").write_text(json.dumps({"step": 3, "loss/val": 0.5, **values}) + "\n")
    return end(folder, name, begin(folder, name, None), code)


def test_the_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    folder, runs = make(tmp_path, 3)
    assert folder.read_plan() == (runs, "c", [])


@pytest.mark.parametrize(
    ("code", "state"), [(0, "done"), (1, "failed"), (2, "failed"), (143, "stopped"), (138, "stopped")]
)
def test_a_run_is_what_its_exit_code_says(tmp_path: Path, code: int, state: str) -> None:
    folder, (run,) = make(tmp_path)
    assert folder.state(run.name).state == "waiting"
    finish(folder, run.name, code)
    found = folder.state(run.name)
    assert (found.state, found.attempt, found.exit_code) == (state, 1, code)
    finish(folder, run.name, 0)
    assert folder.state(run.name).attempt == 2


def test_a_run_whose_process_is_gone_died(tmp_path: Path) -> None:
    folder, (run,) = make(tmp_path)
    begin(folder, run.name, None)
    assert folder.state(run.name).state == "running"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder.write_state(run.name, State("running", 1, gone.pid, folder.state(run.name).host))
    found = folder.state(run.name)
    assert found.state == "died"
    assert str(gone.pid) in found.why


def test_slurm_is_asked_about_its_own_runs(tmp_path: Path) -> None:
    folder, (run,) = make(tmp_path)
    assert folder.state(run.name, jobs={run.name: "7_0"}).state == "queued"
    begin(folder, run.name, "7_0")
    assert folder.state(run.name, jobs={run.name: "7_0"}).state == "running"
    assert folder.state(run.name, jobs={}).state == "died"


def test_a_failure_shows_the_last_line_and_missing_metrics_are_one(tmp_path: Path) -> None:
    folder, (run,) = make(tmp_path)
    folder.log(run.name).write_text("first\nlightning-metatok: error: model.d_model=7\n\n")
    finish(folder, run.name, 2)
    assert folder.state(run.name).why == "lightning-metatok: error: model.d_model=7"
    finish(folder, run.name, 0)
    assert folder.state(run.name, ["answers/full_1x"]).why == "did not log answers/full_1x"


def test_the_reason_of_a_failure_is_kept_and_asked_of_the_log_where_none_was_written(tmp_path: Path) -> None:
    folder, (run,) = make(tmp_path)
    folder.log(run.name).write_text("last word\n")
    folder.write_state(run.name, State("failed", 1, why="written"))
    assert folder.state(run.name).why == "written"
    folder.write_state(run.name, State("failed", 1))
    assert folder.state(run.name).why == "last word"


def test_a_folder_belongs_to_the_sweep_file_of_that_name(tmp_path: Path) -> None:
    folder, runs = make(tmp_path)
    folder.check_file(Path("any.yaml"))  # an older plan does not say
    folder.write_plan(runs, "", "c", [], "x.yaml")
    folder.check_file(Path("elsewhere/x.yaml"))
    with pytest.raises(UserError, match=r"the sweep of x.yaml lives here; expected a folder of y.yaml"):
        folder.check_file(Path("y.yaml"))


def test_damaged_files_are_named_and_stop_nothing(tmp_path: Path) -> None:
    folder, runs = make(tmp_path, 2)
    for run in runs:
        finish(folder, run.name)
    (folder.run_folder(runs[0].name) / "metrics.jsonl").write_text('{"step": 1, "loss')
    (folder.path / "states" / f"{runs[1].name}.json").write_text("{")
    assert [folder.state(run.name).state for run in runs] == ["damaged", "damaged"]
    assert list(collect(folder, runs, [], [])["state"]) == ["damaged", "damaged"]
    (folder.path / "plan.json").write_text("[]")
    with pytest.raises(UserError, match=r"plan.json: damaged"):
        folder.read_plan()


def test_a_second_process_is_refused_and_hears_who_works(tmp_path: Path) -> None:
    folder, _ = make(tmp_path)
    with folder.held():
        assert folder.owner() == os.getpid()
        with pytest.raises(UserError, match=f"process {os.getpid()} on .* runs this sweep"), folder.held():
            pass
    assert folder.owner() is None
    with folder.held():
        pass


def test_what_a_run_was_started_with_outlives_changes(tmp_path: Path) -> None:
    folder, _ = make(tmp_path)
    package, config = tmp_path / "package", tmp_path / "a.yaml"
    package.mkdir()
    (package / "module.py").write_text("1")
    config.write_text("model: {d_model: 64}")
    run = PlannedRun("0123456789", "x", {}, (str(config),), {"trainer.max_steps": 3})
    folder.write_spec(run, "v1", folder.take_snapshot(package, [str(config)], "v1"))
    config.write_text("model: {d_model: 65}")
    (package / "module.py").write_text("2")
    folder.write_plan([], "other", "v2", [])
    folder.take_snapshot(package, [str(config)], "v2")
    code, arguments = folder.read_spec(run.name)
    assert (folder.code(code) / "package" / "module.py").read_text() == "1"
    assert Path(arguments[0].removeprefix("--config=")).read_text() == "model: {d_model: 64}"
    assert arguments[1:] == ["--trainer.max_steps=3", f"--run_dir={folder.run_folder(run.name)}", "--ckpt_path=auto"]
    with pytest.raises(UserError, match="no such run"):
        folder.read_spec("x-1")


def test_the_table_has_a_row_a_run_and_the_last_value_of_each_metric(tmp_path: Path) -> None:
    folder, runs = make(tmp_path, 3)
    finish(folder, runs[0].name, **{"loss/val": 0.25})
    table = collect(folder, runs, [], ["loss/val"])
    assert list(table["state"]) == ["done", "waiting", "waiting"]
    assert list(table["seed_everything"]) == [0, 1, 2]
    assert table["loss/val"][0] == 0.25
    assert table["loss/val"].isna().sum() == 2
    with pytest.raises(UserError, match="did you mean 'loss/val'"):
        collect(folder, runs, [], ["los/val"])
    for ending, read in ((".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        write_table(table, tmp_path / f"t{ending}")
        assert (tmp_path / f"t{ending}").stat().st_size
        assert list(read(tmp_path / f"t{ending}").columns) == list(table.columns)
    everything = list(collect(folder, runs, [], []).columns)
    assert everything.count("step") == 1
    assert everything.index("step") < everything.index("loss/val")
    with pytest.raises(UserError, match=r"expected a file that ends in \.csv or \.parquet"):
        write_table(table, tmp_path / "t.xls")


def test_a_thousand_runs_are_told_and_collected_at_once(tmp_path: Path) -> None:
    folder, runs = make(tmp_path, 1000)
    line = json.dumps({"step": 3, **{f"metric/{i}": float(i) for i in range(20)}}) + "\n"
    for run in runs:  # as `finish` does, without waiting for the disk each time
        folder.run_folder(run.name).mkdir()
        (folder.run_folder(run.name) / "metrics.jsonl").write_text(20 * line)
        (folder.path / "states" / f"{run.name}.json").write_text(json.dumps(asdict(State("done", 1))))
    began = time.monotonic()
    assert {folder.state(run.name).state for run in runs} == {"done"}
    assert time.monotonic() - began < 3
    assert len(collect(folder, runs, [], [])) == 1000
    assert time.monotonic() - began < 20
