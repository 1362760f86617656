"""SIGTERM, SIGINT and SIGUSR1 stop a run at a step border; on SIGUSR1 a SLURM job puts itself back into the queue."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from lightning_metatok import signals
from lightning_metatok.lit.checkpoints.folder import newest_valid
from tests.system.torture import SERVER, Undisturbed, differences, launch


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The variables of task 3 of array job 70, and a `scontrol` that writes down which requeue it was asked for.

    What it shows of the job is $PREEMPT_TIME.
    """
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    log = tmp_path / "scontrol.log"
    program.write_text(
        f'#!/bin/sh\n[ $1 = show ] && echo "Restarts=0 PreemptTime=$PREEMPT_TIME" || echo "$@" >> {log}\n'
    )
    program.chmod(0o755)
    job = {"SLURM_JOB_ID": "73", "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "3", "SLURM_NTASKS": "1"}
    job |= {"SLURM_JOB_NAME": "sweep", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    return {**job, "PATH": f"{program.parent}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("number", "preempt_time", "asked"),
    [
        (signal.SIGUSR1, "None", "requeue 70_3\n"),
        (signal.SIGTERM, "None", ""),
        (signal.SIGTERM, "2026-11-25T12:42:13", "requeue 70_3\n"),
        (signal.SIGINT, "None", ""),
    ],
)
def test_a_slurm_job_comes_back_on_sigusr1_and_when_it_is_preempted(
    number: int, preempt_time: str, asked: str, undisturbed: Undisturbed, slurm: dict[str, str], tmp_path: Path
) -> None:
    """Under SLURM's own variables, so that Lightning's automatic requeue would act if it were not off."""
    whole, _ = undisturbed("task")
    cache = str(whole.parent / "task-cache")
    around = {**slurm, "PREEMPT_TIME": preempt_time, "LIGHTNING_METATOK_CACHE": cache}
    command = [*undisturbed.commands["task"], f"--run_dir={tmp_path / 'run'}", "--ckpt_path=auto"]
    child = launch(command, tmp_path / "log", around)
    assert child.wait_for("training", 2)
    child.strike(number)
    assert child.wait() == 128 + number, child.log.read_text()
    log = tmp_path / "scontrol.log"
    assert (log.read_text() if log.exists() else "") == asked
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    assert newest_valid(tmp_path / "run" / "checkpoints", lambda message: pytest.fail(message)) is not None
    if asked:
        child = launch(command, tmp_path / "log", around)
        assert child.wait() == 0, child.log.read_text()
        assert differences(tmp_path / "run", whole) == []


@pytest.mark.parametrize("steps", [12, 24])
def test_a_job_whose_last_step_is_made_does_not_come_back(
    steps: int, undisturbed: Undisturbed, slurm: dict[str, str], tmp_path: Path
) -> None:
    """SIGUSR1 in the twelfth and last step lets the run end; in the twelfth of 24 it does not."""
    whole, _ = undisturbed("task")
    around = {**slurm, "LIGHTNING_METATOK_CACHE": str(whole.parent / "task-cache")}
    command = [*undisturbed.commands["task"], f"--run_dir={tmp_path / 'run'}", "--ckpt_path=auto"]
    child = launch([*command, f"--trainer.max_steps={steps}"], tmp_path / "log", around)
    assert child.wait_for("validation", 3)  # behind the sanity check and two others: that of the twelfth step
    child.strike(signal.SIGUSR1)
    assert child.wait() == (0 if steps == 12 else 128 + signal.SIGUSR1), child.log.read_text()
    assert (tmp_path / "scontrol.log").exists() == (steps == 24)
    if steps == 12:
        assert differences(tmp_path / "run", whole) == []


def test_a_signal_while_torch_is_loaded_is_obeyed_not_fatal(
    quick: list[str], slurm: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "lightning_metatok", "fit", *quick, f"--run_dir={tmp_path / 'run'}"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env={**os.environ, **slurm}, cwd=Path(__file__).parents[2])  # fmt: skip
    status = Path(f"/proc/{child.pid}/status")
    if not status.exists():
        child.kill()
        pytest.skip("only Linux shows which signals a process handles")
    while not caught(status) >> (signal.SIGUSR1 - 1) & 1:
        time.sleep(0.002)
    assert "torch" not in Path(f"/proc/{child.pid}/maps").read_text()  # it comes before the slow imports
    child.send_signal(signal.SIGUSR1)
    _, err = child.communicate(timeout=120)
    assert (child.returncode, len(err.splitlines())) == (128 + signal.SIGUSR1, 2), err
    assert err.splitlines()[0] == "scontrol requeue 70_3 done"
    assert err.splitlines()[1].startswith("lightning-metatok: stopped by SIGUSR1 at step 0")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("kind", ["text", "task"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_to_the_process_group_stops_a_run_with_workers_as_one_to_the_run(
    number: int, kind: str, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """As `timeout`, systemd, batch systems and a closing terminal send it."""
    whole, _ = undisturbed(kind)
    cache = {"LIGHTNING_METATOK_CACHE": str(whole.parent / f"{kind}-cache")}
    command = [*undisturbed.commands[kind], f"--run_dir={tmp_path / 'run'}", "--ckpt_path=auto", "--data.num_workers=2"]
    child = launch(command, tmp_path / "log", cache)
    assert child.wait_for("training", 2)
    child.strike(number, group=True)
    assert child.wait() == 128 + number, child.log.read_text()
    assert len(child.log.read_text().splitlines()) <= 3
    assert newest_valid(tmp_path / "run" / "checkpoints", lambda message: pytest.fail(message)) is not None
    child = launch(command, tmp_path / "log", cache)
    assert child.wait() == 0, child.log.read_text()
    assert differences(tmp_path / "run", whole) == []


def test_a_hangup_that_was_ignored_at_the_start_stays_ignored() -> None:
    """As `nohup` starts a program."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        for handlers in (signals.only_set_a_flag, signals.end_at_once):
            with handlers():
                os.kill(os.getpid(), signal.SIGHUP)
                assert signals.received() == 0
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_verbs_end_at_once_but_through_what_they_must_still_do(number: int) -> None:
    done = []

    def work() -> None:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            done.append("cleaned")

    with signals.end_at_once(), pytest.raises(signals.Ended) as ended:
        work()
    assert (ended.value.number, done) == (number, ["cleaned"])


def caught(status: Path) -> int:
    """The mask of signals that a process handles."""
    return next(int(line.split()[1], 16) for line in status.read_text().splitlines() if line.startswith("SigCgt"))


def deaf(pipe: Connection) -> None:
    """Never reach a step border."""
    with signals.only_set_a_flag():
        pipe.send("ready")
        while True:
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("sent", "ends"),
    [
        ([signal.SIGINT, signal.SIGINT], True),
        ([signal.SIGINT], False),
        ([signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM], False),
    ],
)
def test_a_second_sigint_ends_at_once_and_nothing_else_does(sent: list[int], ends: bool) -> None:
    reading, writing = SERVER.Pipe(duplex=False)
    child = SERVER.Process(target=deaf, args=(writing,))
    child.start()
    reading.recv()
    assert child.pid is not None
    for number in sent:
        os.kill(child.pid, number)
        time.sleep(0.05)
    child.join(20 if ends else 0.2)
    code = child.exitcode
    child.kill()
    child.join()
    assert code == (130 if ends else None)


def test_a_cancelled_job_does_not_come_back() -> None:
    """SIGTERM outweighs SIGUSR1 in either order."""
    for order in ((signal.SIGUSR1, signal.SIGTERM), (signal.SIGTERM, signal.SIGUSR1)):
        with signals.only_set_a_flag():
            for number in order:
                os.kill(os.getpid(), number)
            assert signals.received() == signal.SIGTERM
        assert signals.received() == 0
