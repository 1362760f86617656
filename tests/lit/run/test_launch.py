"""A run that would wait for processes that nobody starts is refused, in a line that says what to type."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_metatok.errors import UserError
from lightning_metatok.lit import Trainer
from lightning_metatok.lit.run.launch import check_launch, n_devices

JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "spawner", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}


def enter(monkeypatch: pytest.MonkeyPatch, **variables: int | str) -> None:
    """As inside a job."""
    for name, value in {**JOB, **variables}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("variables", "devices", "nodes", "message"),
    [
        # a notebook's job with four tasks
        ({"SLURM_NTASKS": 4}, 1, 1, "SLURM_NTASKS=4: this job of 4 tasks was entered without srun"),
        ({"SLURM_NTASKS": 4, "SLURM_NTASKS_PER_NODE": 4}, 4, 1, "expected `srun --ntasks-per-node=4 lightning-metatok"),
        # a batch script without srun
        ({"SLURM_NTASKS": 1}, 2, 1, "trainer.devices=2: this job of 1 tasks was entered without srun"),
        ({"SLURM_NTASKS": 1}, "2", 1, "or `env -u SLURM_NTASKS lightning-metatok ...` without SLURM"),
        ({"SLURM_NTASKS": 1}, 1, 2, "trainer.devices=1 and trainer.num_nodes=2: this job of 1 tasks"),
        # srun with another number of tasks
        (
            {"SLURM_NTASKS": 1, "SLURM_STEP_NUM_TASKS": 1},
            2,
            1,
            "srun started 1; expected `srun --nodes=1",
        ),
        ({"SLURM_NTASKS": 4, "SLURM_STEP_NUM_TASKS": 4}, 1, 1, "1 processes, and srun started 4"),
        ({"SLURM_NTASKS": 8, "SLURM_STEP_ID": 0}, 4, 1, "4 processes, and srun started 8"),
        ({"SLURM_NTASKS": 4, "SLURM_STEP_NUM_TASKS": 4}, 4, 1, "expected --ntasks-per-node=4 for srun, not --ntasks=4"),
        ({"SLURM_NTASKS": "many"}, 1, 1, "SLURM_NTASKS=many: expected a number of tasks"),
        # no SLURM that counts
        ({}, 1, 2, "trainer.num_nodes=2: nothing says where the other nodes are"),
        ({"SLURM_NTASKS": 4, "SLURM_JOB_NAME": "bash"}, 1, 2, "trainer.num_nodes=2: nothing says where"),
    ],
)
def test_it_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, int | str], devices: int | str, nodes: int, message: str
) -> None:
    enter(monkeypatch, **variables)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        check_launch(devices, nodes, "cpu")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=re.escape(message)):
        Trainer(devices=devices, num_nodes=nodes, accelerator="cpu", precision="32-true")


@pytest.mark.parametrize(
    ("variables", "devices", "nodes"),
    [
        ({"SLURM_NTASKS": 1}, 1, 1),
        ({}, 2, 1),
        ({"SLURM_NTASKS": 4, "SLURM_JOB_NAME": "interactive"}, 2, 1),
        ({"SLURM_NTASKS": 4, "SLURM_STEP_NUM_TASKS": 4, "SLURM_NTASKS_PER_NODE": 2}, 2, 2),
        ({"SLURM_NTASKS": 8, "SLURM_STEP_NUM_TASKS": 1}, 1, 1),
        ({"SLURM_NTASKS": 4, "TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": 4, "RANK": 0}, 4, 1),
        ({"MASTER_ADDR": "x", "NODE_RANK": 0}, 1, 2),
    ],
)
def test_what_has_all_its_processes_goes_on(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, int | str], devices: int, nodes: int
) -> None:
    enter(monkeypatch, **variables)
    check_launch(devices, nodes, "cpu")


@pytest.mark.parametrize(
    ("devices", "n"), [(2, 2), ("3", 3), ([0, 2], 2), ("0,1,", 2), ("auto", 1), (-1, 1), ("-1", 1)]
)
def test_devices_are_counted_as_lightning_counts_them(devices: object, n: int) -> None:
    assert n_devices(devices, "cpu") == n


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--trainer.devices=2"], []])
def test_fit_in_a_job_without_srun_ends_at_once_and_leaves_nothing(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    enter(monkeypatch, SLURM_NTASKS=1 if options else 4)
    command = [sys.executable, "-m", "lightning_metatok", "fit", "--config=conf/debug.yaml", *options]
    done = subprocess.run(
        [*command, f"--run_dir={tmp_path / 'run'}"], cwd=repository, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "was entered without srun" in done.stderr
    assert list(tmp_path.iterdir()) == []
