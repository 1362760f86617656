"""A sweep with real processes: a failure stops nothing else, what is stopped goes on, what is done stays done."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system.helpers import run

TINY = {
    "model.d_model": 16,
    "model.n_layers": 1,
    "model.n_heads": 2,
    "data.batch_size": 4,
    "data.validation_examples": 8,
    "data.test_examples": 8,
    "trainer.log_every_n_steps": 1,
    "trainer.max_steps": 4,
    "trainer.val_check_interval": 4,
    "lengths.multiples": [1],
    "lengths.n": 1000,
}


def write(path: Path, repository: Path, **content: Any) -> Path:
    """A sweep file of tiny runs."""
    config = str(repository / "conf" / "task" / "list_recall_nano.yaml")
    given = {"configs": [config], "seeds": [1], **content}
    path.write_text(yaml.safe_dump({**given, "set": {**TINY, **given.get("set", {})}}))
    return path


@pytest.mark.slow
def test_one_failure_stops_nothing_and_nothing_is_done_twice(tmp_path: Path, repository: Path) -> None:
    grid = {"data.task_options.n_lists": [[2, 2], [3, 2]]}
    file, folder = write(tmp_path / "x.yaml", repository, grid=grid, collect=["loss/val"]), tmp_path / "sweep"
    outcome = run("sweep", "run", file, f"--folder={folder}", "--workers=2")
    assert outcome.code == 1
    assert "2 runs: 1 done, 1 failed" in outcome.err
    with (folder / "table.csv").open() as table:
        rows = {row["state"]: row for row in csv.DictReader(table)}
    assert float(rows["done"]["loss/val"]) > 0
    assert rows["failed"]["loss/val"] == ""
    shown = run("sweep", "status", file, f"--folder={folder}").out
    assert "data.task_options.n_lists=[3, 2]: expected" in shown
    again = run("sweep", "run", file, f"--folder={folder}")
    assert "2 runs: 1 done, 0 to run" in again.err
    states = [json.loads(path.read_text()) for path in (folder / "states").iterdir()]
    assert [state["attempt"] for state in states] == [1, 1]


@pytest.mark.slow
def test_a_sweep_that_is_edited_and_stopped_goes_on_where_its_runs_were(tmp_path: Path, repository: Path) -> None:
    long = {"trainer.max_steps": 100_000, "model.optimizer.decay_steps": 100}
    file, folder = write(tmp_path / "x.yaml", repository, set=long), tmp_path / "sweep"
    command = [sys.executable, "-m", "lightning_metatok", "sweep", "run", str(file), f"--folder={folder}"]
    sweep = subprocess.Popen(command, cwd=repository, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    (name,) = wait_for(lambda: [path.stem for path in (folder / "specs").glob("*.json")])
    metrics = folder / "runs" / name / "metrics.jsonl"
    wait_for(lambda: metrics.is_file() and metrics.stat().st_size > 500)
    write(file, repository, seeds=[2])  # edited while it runs
    status = run("sweep", "status", file, f"--folder={folder}")
    assert "has changed since these runs were started" in status.err
    assert "1 runs: 1 running" in status.out
    refused = run("sweep", "run", file, f"--folder={folder}")
    assert (refused.code, refused.err.count("\n"), "runs this sweep" in refused.err) == (2, 1, True)
    write(file, repository, set=long)
    sweep.send_signal(signal.SIGTERM)
    assert sweep.wait(60) == 130
    state = json.loads((folder / "states" / f"{name}.json").read_text())
    assert (state["state"], state["exit_code"]) == ("stopped", 143)
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    # Shorten what is left: the number of steps is free to change.
    spec = folder / "specs" / f"{name}.json"
    spec.write_text(spec.read_text().replace("--trainer.max_steps=100000", f"--trainer.max_steps={steps[-1] + 5}"))
    assert run("sweep", "retry", file, f"--folder={folder}").code == 0
    state = json.loads((folder / "states" / f"{name}.json").read_text())
    assert (state["state"], state["attempt"]) == ("done", 2)
    logged = [line["step"] for line in map(json.loads, metrics.read_text().splitlines()) if "loss/train" in line]
    assert logged == list(range(1, steps[-1] + 6))
    write(file, repository, seeds=[2])
    outcome = run("sweep", "run", file, f"--folder={folder}")
    assert outcome.code == 0
    assert "1 runs of an earlier version" in outcome.err
    states = {path.stem: json.loads(path.read_text())["state"] for path in (folder / "states").glob("*.json")}
    assert (len(states), set(states.values())) == (2, {"done"})


@pytest.mark.slow
def test_the_run_of_a_sweep_that_was_killed_is_found_and_cancelled(tmp_path: Path, repository: Path) -> None:
    file, folder = write(tmp_path / "x.yaml", repository, set={"trainer.max_steps": 100_000}), tmp_path / "sweep"
    command = [sys.executable, "-m", "lightning_metatok", "sweep", "run", str(file), f"--folder={folder}"]
    sweep = subprocess.Popen(command, cwd=repository, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    metrics = wait_for(lambda: list((folder / "runs").glob("*/metrics.jsonl")))[0]
    wait_for(lambda: metrics.stat().st_size > 500)
    sweep.kill()
    sweep.wait()
    assert "1 runs: 1 running" in run("sweep", "status", file, f"--folder={folder}").out
    outcome = run("sweep", "cancel", file, f"--folder={folder}")
    assert "1 runs cancelled: 1 on this machine, 0 in SLURM" in outcome.out
    state = folder / "states" / f"{metrics.parent.name}.json"
    wait_for(lambda: json.loads(state.read_text())["state"] == "stopped")
    ended = json.loads(state.read_text())
    assert (ended["attempt"], ended["exit_code"], ended["pid"]) == (1, 143, None)
    assert ended["ended"] >= ended["started"]
    assert "0 runs cancelled" in run("sweep", "cancel", file, f"--folder={folder}").out


def wait_for(condition: Any, seconds: float = 60) -> Any:
    """What `condition` gives as soon as it gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise TimeoutError(f"nothing after {seconds} s; load {os.getloadavg()[0]:.1f}")
