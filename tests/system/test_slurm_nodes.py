"""One run on two nodes of a real SLURM: the losses of one process, through a requeue, in shards, without its slurmd.

Where no SLURM answers, all of this is skipped.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_metatok.lit.checkpoints.io import fault_of, read_state
from tests.system.helpers import curve, lines, succeed
from tests.system.test_slurm import cluster, slurm  # noqa: F401  (a fixture)
from tests.system.test_sweep import wait_for
from tests.system.torture import CLOCKS, same

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

STEPS = 60


@pytest.fixture(scope="module")
def options(quick: list[str]) -> list[str]:
    """Sixty steps, a checkpoint every five of them."""
    return [
        *quick,
        *(f"--trainer.max_steps={STEPS}", "--trainer.val_check_interval=20", "--trainer.log_every_n_steps=1"),
        *("--trainer.precision=32-true", "--checkpoint.every_n_steps=5", "--model.dropout=0.0"),
    ]


class Job:
    """A run of two tasks, one on each node, four rows each."""

    def __init__(self, folder: Path, repository: Path, options: list[str], strategy: str) -> None:
        self.run_folder, self.log = folder / "run", folder / "slurm.log"
        folder.mkdir(parents=True, exist_ok=True)
        fit = [
            *(sys.executable, "-P", "-m", "lightning_metatok", "fit", *options, f"--run_dir={self.run_folder}"),
            *("--data.batch_size=4", "--ckpt_path=auto", "--trainer.accelerator=cpu", "--trainer.devices=1"),
            *("--trainer.num_nodes=2", f"--trainer.strategy={strategy}"),
        ]
        script = folder / "job.sh"
        cache = folder / "cache"  # empty: one of the two ranks fills it
        script.write_text(
            "#!/bin/bash\n"
            f"export PYTHONPATH='{repository}' OMP_NUM_THREADS=1 LIGHTNING_METATOK_CACHE='{cache}'\n"
            f"exec srun --kill-on-bad-exit=1 {' '.join(repr(part) for part in fit)}\n"
        )
        given = ["--nodes=2", "--ntasks-per-node=1", "--time=10", "--requeue", "--open-mode=append"]
        self.number = slurm("sbatch", "--parsable", *given, f"--output={self.log}", str(script)).strip()

    @property
    def state(self) -> str:
        """SLURM's word for it, such as RUNNING."""
        shown = slurm("scontrol", "show", "job", "--oneliner", self.number)
        return next(word.partition("=")[2] for word in shown.split() if word.startswith("JobState="))

    def reaches(self, step: int) -> None:
        """Wait until a checkpoint behind `step` is there."""
        checkpoints = self.run_folder / "checkpoints"
        wait_for(lambda: any(int(p.stem[5:]) >= step for p in checkpoints.glob("step-*.json")), 180)

    def ends(self) -> None:
        """Wait until it is done."""
        wait_for(lambda: self.state not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING"), 300)
        assert self.state == "COMPLETED", self.log.read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, repository: Path, options: list[str]) -> Job:
    """DDP on two nodes, never interrupted."""
    job = Job(tmp_path_factory.mktemp("ddp"), repository, options, "ddp")
    job.ends()
    return job


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, options: list[str]) -> Path:
    """The run folder of one process that sees the same eight rows a step."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    succeed("fit", *options, "--data.batch_size=8", f"--run_dir={folder}")
    return folder


def assert_close(run: Path, alone: Path) -> None:
    """The same validation losses at the same steps, within 1e-4: gradients are summed in another order."""
    one, two = curve(alone, "loss/val"), curve(run, "loss/val")
    assert [step for step, _ in one] == [step for step, _ in two] == [20, 40, 60]
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], rel=1e-4)
    assert [step for step, _ in curve(run, "loss/train")] == list(range(1, STEPS + 1))
    assert len(list(run.glob("events.out.tfevents.*"))) == 1


def without_clocks(run: Path) -> list[dict[str, float]]:
    """Every line of the log, but for what a clock said."""
    return [{name: value for name, value in line.items() if name not in CLOCKS} for line in lines(run)]


def test_two_nodes_have_the_losses_of_one_process(undisturbed: Job, alone: Path) -> None:
    assert_close(undisturbed.run_folder, alone)
    nodes = slurm("scontrol", "show", "job", "--oneliner", undisturbed.number)
    assert "NodeList=vn[1-2]" in nodes
    said = undisturbed.log.read_text()
    assert said.count("run folder:") == 1
    assert (undisturbed.run_folder / "logs" / "rank-1.log").is_file()
    assert sorted(path.name for path in undisturbed.run_folder.parent.iterdir()) == sorted(
        ["cache", "job.sh", "run", "slurm.log"]
    )


def test_a_requeue_changes_nothing(undisturbed: Job, tmp_path: Path, repository: Path, options: list[str]) -> None:
    job = Job(tmp_path, repository, options, "ddp")
    job.reaches(10)
    slurm("scontrol", "requeue", job.number)
    wait_for(lambda: job.state == "PENDING", 60)
    job.ends()
    assert "Restarts=1" in slurm("scontrol", "show", "job", "--oneliner", job.number)
    assert without_clocks(job.run_folder) == without_clocks(undisturbed.run_folder)
    mine, theirs = (read_state(one.run_folder / "checkpoints" / "last.ckpt", key="x") for one in (job, undisturbed))
    assert all(same(mine[name], theirs[name]) for name in ("state_dict", "optimizer_states", "lr_schedulers"))
    assert len(list(job.run_folder.glob("events.out.tfevents.*"))) == 1


def test_shards_of_two_nodes_are_read_by_one_process(
    alone: Path, tmp_path: Path, repository: Path, options: list[str]
) -> None:
    job = Job(tmp_path, repository, options, "fsdp2")
    job.ends()
    assert_close(job.run_folder, alone)
    last = (job.run_folder / "checkpoints" / "last.ckpt").resolve()
    assert len(list(last.with_suffix(".shards").iterdir())) == 2
    assert fault_of(last) is None
    one_process = ["--trainer.strategy=auto", "--trainer.devices=1", "--trainer.num_nodes=1", "--data.batch_size=8"]
    succeed("validate", f"--ckpt_path={last}", *one_process)
    ((_, loss),) = curve(job.run_folder / "validate", "loss/val")
    assert loss == pytest.approx(curve(job.run_folder, "loss/val")[-1][1], rel=1e-6)


@pytest.fixture
def impatient() -> Iterator[dict[str, str]]:
    """SLURM's configuration, with nodes given up after 10 s without an answer: its usual 120 s and more are too long.

    The file is put back afterwards.
    """
    shown = slurm("scontrol", "show", "config").splitlines()
    config = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in shown)}
    file = Path(config["SLURM_CONF"])
    before = file.read_text()
    if not os.access(file, os.W_OK) or "%n" not in config["SlurmdPidFile"]:
        pytest.skip("this is no SLURM of virtual nodes that a test may change")
    file.write_text(re.sub(r"(?m)^SlurmdTimeout=.*$", "SlurmdTimeout=10", before))
    try:
        slurm("scontrol", "reconfigure")
        yield config
    finally:
        file.write_text(before)
        slurm("scontrol", "reconfigure")


def task_of(job: Job, rank: int) -> int:
    """The process of a rank, found by what SLURM put into its environment."""
    wanted = {f"SLURM_JOB_ID={job.number}", f"SLURM_PROCID={rank}", "SLURM_STEP_NUM_TASKS=2"}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            around = set((folder / "environ").read_bytes().decode(errors="replace").split("\0"))
            if wanted <= around and b"lightning_metatok" in (folder / "cmdline").read_bytes():
                return int(folder.name)
    raise AssertionError(f"no rank {rank} of job {job.number}")


def test_a_node_that_freezes_and_loses_its_slurmd_is_given_up_and_the_run_ends_all_the_same(
    undisturbed: Job, tmp_path: Path, repository: Path, options: list[str], impatient: dict[str, str]
) -> None:
    """The task stands still, so that the other rank waits for it; SLURM gives the node up after about 30 s."""
    job = Job(tmp_path, repository, options, "ddp")
    job.reaches(10)
    task = task_of(job, rank=1)
    os.kill(task, signal.SIGSTOP)
    daemon = int(Path(impatient["SlurmdPidFile"].replace("%n", "vn2")).read_text())
    command = Path(f"/proc/{daemon}/cmdline").read_bytes().decode().split("\0")[:-1]
    os.kill(daemon, signal.SIGKILL)
    try:
        wait_for(lambda: job.state == "PENDING", 170)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(task, signal.SIGKILL)
        subprocess.run(command, check=True)
    job.ends()
    assert "Restarts=1" in slurm("scontrol", "show", "job", "--oneliner", job.number)
    assert without_clocks(job.run_folder) == without_clocks(undisturbed.run_folder)
