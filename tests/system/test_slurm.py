"""Sweeps on a real SLURM: arrays over two nodes, and every way in which a job is taken away from a run.

A run that lost its job, to a higher priority, to its time limit or with its node, ends with the weights and the log of
one that never did. Where no SLURM answers, all of this is skipped.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.system.helpers import run
from tests.system.test_sweep import wait_for, write

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

LONG = {
    "model.d_model": 32,
    "model.n_layers": 2,
    "model.dropout": 0.1,
    "data.batch_size": 16,
    "trainer.max_steps": 1200,
    "trainer.val_check_interval": 600,
    "trainer.log_every_n_steps": 50,
    "checkpoint.every_n_steps": 100,
    "trainer.precision": "32-true",
}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A SLURM that answers, emptied afterwards."""
    if shutil.which("sbatch") is None:
        pytest.skip("no sbatch on this machine")
    answer = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, check=False)
    if "UP" not in answer.stdout:
        pytest.skip(f"SLURM does not answer: {answer.stdout.strip() or answer.stderr.strip()}")
    yield
    subprocess.run(["scancel", "--me"], check=False)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The run folder of the long run, never interrupted, on one processor as in SLURM: threads add in another order."""
    folder = tmp_path_factory.mktemp("undisturbed") / "sweep"
    file = write(folder.with_name("x.yaml"), repository, set=LONG)
    outcome = run("sweep", "run", file, f"--folder={folder}", f"--workers={os.cpu_count()}")
    assert outcome.code == 0, outcome
    (found,) = (folder / "runs").iterdir()
    return found


class OneRun:
    """The long run, handed to SLURM."""

    def __init__(self, folder: Path, repository: Path, **resources: Any) -> None:
        self.folder = folder / "sweep"
        given = {"partition": "main", "minutes": 10, "signal_lead_s": 30, **resources}
        self.file = write(folder / "x.yaml", repository, set=LONG, resources=given)
        outcome = run("sweep", "run", self.file, f"--folder={self.folder}", "--on=slurm")
        assert outcome.code == 0, outcome
        (path,) = (self.folder / "specs").glob("*.json")
        self.name = path.stem

    @property
    def state(self) -> dict[str, Any]:
        """What the run's process wrote last."""
        try:
            return json.loads((self.folder / "states" / f"{self.name}.json").read_text())
        except FileNotFoundError:
            return {"state": "waiting", "attempt": 0, "job": None}

    @property
    def run_folder(self) -> Path:
        """What `fit` writes."""
        return self.folder / "runs" / self.name

    def reaches(self, step: int) -> None:
        """Wait until a checkpoint behind `step` is there."""
        checkpoints = self.run_folder / "checkpoints"
        wait_for(lambda: any(int(p.stem[5:]) >= step for p in checkpoints.glob("step-*.ckpt")), 240)

    def ends(self) -> None:
        """Wait until it is done."""
        wait_for(lambda: self.state["state"] in ("done", "failed"), 420)
        log = (self.folder / "logs" / f"{self.name}.log").read_text()
        assert self.state["state"] == "done", log


def assert_same(one: Path, other: Path) -> None:
    """Weights bit by bit, and every value of the log but clocks."""
    mine, theirs = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (one, other))
    assert [key for key in mine if not torch.equal(mine[key], theirs[key])] == []
    logs = []
    for folder in (one, other):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        logs.append([{k: v for k, v in line.items() if not k.startswith("throughput/")} for line in lines])
    assert logs[0] == logs[1]
    assert len(list(one.glob("events.out.tfevents*"))) == 1


def slurm(*command: str) -> str:
    """Call a command of SLURM; return what it says."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_an_array_of_eight_runs_finishes_on_two_nodes_and_is_collected(tmp_path: Path, repository: Path) -> None:
    folder, resources = tmp_path / "sweep", {"partition": "main", "minutes": 5, "signal_lead_s": 30}
    file = write(tmp_path / "x.yaml", repository, seeds=list(range(8)), resources=resources, collect=["loss/val"])
    outcome = run("sweep", "run", file, f"--folder={folder}", "--on=slurm")
    assert outcome.code == 0, outcome
    table = wait_for(lambda: (folder / "table.csv").is_file() and (folder / "table.csv").read_text(), 420)
    rows = table.splitlines()
    assert len(rows) == 9
    assert all(",done,1," in row for row in rows[1:])
    assert "8 runs: 8 done" in run("sweep", "status", file, f"--folder={folder}").out
    job = json.loads((folder / "submissions" / "1.json").read_text())["job"]
    nodes = slurm("sacct", "-X", "-n", "-P", "-j", job, "--format=NodeList").split() if shutil.which("sacct") else []
    assert not nodes or set(nodes) == {"vn1", "vn2"}


def test_a_folder_and_a_file_of_unusual_names_work(tmp_path: Path, repository: Path) -> None:
    folder = tmp_path / 'two  words, it\'s "x" #1 $HOME `id` 100% %A'
    comment = '--comment="for it\'s #1"'
    resources = {"partition": "main", "minutes": 5, "signal_lead_s": 30, "cpus_per_task": 2, "sbatch": [comment]}
    file = write(tmp_path / "it's a #sweep $x.yaml", repository, resources=resources, collect=["loss/val"])
    outcome = run("sweep", "run", file, f"--folder={folder}", "--on=slurm")
    assert outcome.code == 0, outcome
    job = json.loads((folder / "submissions" / "1.json").read_text())["job"]
    shown = slurm("scontrol", "show", "job", job)
    assert "Comment=for it's #1" in shown
    assert f"JobName=metatok-{folder.name}" in shown
    assert "CpusPerTask=2" in shown or "CPUs/Task=2" in shown
    table = wait_for(lambda: (folder / "table.csv").is_file() and (folder / "table.csv").read_text(), 420)
    assert ",done,1," in table.splitlines()[1]
    assert (folder / "logs" / f"slurm-{job}_0.log").is_file()


def test_a_run_that_is_preempted_goes_on_as_if_nothing_had_been(
    undisturbed: Path, tmp_path: Path, repository: Path
) -> None:
    one = OneRun(tmp_path, repository, partition="scavenge")
    one.reaches(200)
    hog = slurm(
        "sbatch", "--parsable", "--partition=main", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 5"
    ).strip()
    wait_for(lambda: one.state["state"] == "stopped", 120)
    one.ends()
    assert one.state["attempt"] >= 2
    assert hog not in slurm("squeue", "--noheader", "--format=%A").split()
    assert_same(one.run_folder, undisturbed)


def test_a_run_that_meets_its_time_limit_goes_on_as_if_there_were_none(
    undisturbed: Path, tmp_path: Path, repository: Path
) -> None:
    one = OneRun(tmp_path, repository, minutes=1, signal_lead_s=50)
    one.ends()
    assert one.state["attempt"] >= 2
    assert_same(one.run_folder, undisturbed)


def test_a_run_whose_node_fails_goes_on_from_its_last_checkpoint(
    undisturbed: Path, tmp_path: Path, repository: Path
) -> None:
    one = OneRun(tmp_path, repository)
    one.reaches(200)
    node = slurm("squeue", "--noheader", "--me", "--states=R", "--format=%N").split()[0]
    try:
        slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        wait_for(lambda: one.state["attempt"] >= 2, 180)
    finally:  # refused where SLURM has taken it back by itself
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], capture_output=True, check=False)
    one.ends()
    assert_same(one.run_folder, undisturbed)


def test_a_cancelled_run_is_told_and_finished_by_retry(undisturbed: Path, tmp_path: Path, repository: Path) -> None:
    one = OneRun(tmp_path, repository)
    one.reaches(200)
    slurm("scancel", one.state["job"])
    status = ("sweep", "status", one.file, f"--folder={one.folder}")
    wait_for(lambda: "1 runs: 1 stopped" in run(*status).out, 120)  # SLURM has the job until all of it has ended
    assert run("sweep", "retry", one.file, f"--folder={one.folder}", "--on=slurm").code == 0
    one.ends()
    assert one.state["attempt"] == 2
    assert_same(one.run_folder, undisturbed)


def test_what_slurm_refuses_is_said_in_its_own_words(tmp_path: Path, repository: Path) -> None:
    file = write(tmp_path / "x.yaml", repository, resources={"partition": "nosuch"})
    outcome = run("sweep", "run", file, f"--folder={tmp_path / 'sweep'}", "--on=slurm")
    assert outcome.code == 2
    assert "sbatch: " in outcome.err.splitlines()[-1]
    assert "nvalid partition" in outcome.err.splitlines()[-1]
