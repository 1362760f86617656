"""What goes wrong around a run is told in one line with an exit code of its own, and costs no valid checkpoint."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch

from lightning_metatok.lit.checkpoints.folder import newest_valid
from lightning_metatok.lit.checkpoints.io import fault_of, read_state
from tests.system.helpers import curve, run, succeed
from tests.system.torture import TASK, Child, Undisturbed, differences, launch

ENDLESS = "--trainer.max_steps=100000"


@pytest.fixture
def fit(repository: Path, tmp_path: Path) -> list[str]:
    """A recall task in `tmp_path / run`."""
    config = repository / "conf" / "task" / "list_recall_nano.yaml"
    return ["fit", f"--config={config}", *TASK, f"--run_dir={tmp_path / 'run'}"]


# -- one process a run


@pytest.mark.slow
def test_a_second_process_is_refused_by_the_name_of_the_first_until_that_is_dead(
    fit: list[str], tmp_path: Path
) -> None:
    child = launch([*fit, ENDLESS, "--ckpt_path=auto", "--data.num_workers=2"], tmp_path / "log")
    assert child.wait_for("checkpoint", 1)
    last = str((tmp_path / "run" / "checkpoints" / "last.ckpt").resolve())
    for checkpoint in ("auto", last):
        outcome = run(*fit, ENDLESS, f"--ckpt_path={checkpoint}")
        assert outcome.code == 2
        assert outcome.err == (
            f"lightning-metatok: error: run_dir={tmp_path / 'run'}: process {child.process.pid} on "
            f"{socket.gethostname()} trains here; expected a folder of its own\n"
        )
    child.strike(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    step = read_state(tmp_path / "run" / "checkpoints" / "last.ckpt", key="x")["global_step"]
    options = [ENDLESS.replace("100000", str(step + 1)), "--ckpt_path=auto", "--allow_changed=[model.optimizer.*]"]
    succeed(*fit, *options)  # at once: a lock does not outlive its owner
    assert (tmp_path / "run" / "run.lock").read_text() == ""


def test_of_two_that_begin_a_run_at_once_one_is_refused(fit: list[str], tmp_path: Path) -> None:
    children = [launch([*fit, ENDLESS, "--ckpt_path=auto"], tmp_path / f"log-{i}") for i in range(2)]
    while all(child.process.is_alive() for child in children):
        time.sleep(0.01)
    loser = next(child for child in children if not child.process.is_alive())
    winner = next(child for child in children if child is not loser)
    assert loser.wait() == 2
    assert f"process {winner.process.pid} on" in loser.log.read_text()
    winner.strike(signal.SIGTERM)
    assert winner.wait() == 128 + signal.SIGTERM


# -- what is not finite


def test_a_run_that_diverges_stops_before_its_weights_do_and_can_be_replayed(fit: list[str], tmp_path: Path) -> None:
    diverging = [*fit, "--model.optimizer.lr=1e30", "--model.optimizer.min_lr=0", "--checkpoint.every_n_steps=1"]
    outcome = run(*diverging)
    assert outcome.code == 3, outcome
    assert len(outcome.err.splitlines()) == 1
    assert outcome.err.startswith("lightning-metatok: error: step ")
    assert f"lightning-metatok replay {tmp_path / 'run'}" in outcome.err
    (saved,) = (tmp_path / "run" / "nonfinite").glob("*.pt")
    record = torch.load(saved, weights_only=True)
    assert saved.name == f"step-{record['step']}-rank-0.pt"
    assert f"step {record['step']}: loss " in outcome.err
    # The weights are those of the checkpoint one step before.
    before = read_state(tmp_path / "run" / "checkpoints" / "last.ckpt", key="x")
    assert before["global_step"] == record["step"] - 1
    assert all(torch.equal(record["state_dict"][name], value) for name, value in before["state_dict"].items())
    again = run("replay", tmp_path / "run")
    assert (again.code, again.err) == (0, ""), again
    now, was = again.out.splitlines()[1].removeprefix("  loss").strip().split(", was ")
    assert now == was
    assert "first " in again.out
    skipping = run(*diverging, "--nonfinite.action=skip", "--ckpt_path=auto", f"--trainer.max_steps={record['step']}",
                   "--allow_changed=[model.optimizer.*]")  # fmt: skip
    assert skipping.code == 0, skipping
    assert "skipped, 1 so far" in skipping.err
    after = read_state(tmp_path / "run" / "checkpoints" / "last.ckpt", key="x")["state_dict"]
    assert all(torch.equal(before["state_dict"][name], value) for name, value in after.items())


def test_a_partial_record_is_refused(fit: list[str], tmp_path: Path) -> None:
    assert run(*fit, "--model.optimizer.lr=1e30", "--model.optimizer.min_lr=0").code == 3
    (saved,) = (tmp_path / "run" / "nonfinite").glob("*.pt")
    whole, content = torch.load(saved, weights_only=True), saved.read_bytes()
    weights = dict(list(whole["state_dict"].items())[1:])
    batches = [{key: value for key, value in batch.items() if key != "tokens_BT"} for batch in whole["batches"]]
    foreign = [{**batch, "tokens_BT": batch["tokens_BT"] + 10**6} for batch in whole["batches"]]
    partial = [{key: value for key, value in whole.items() if key != name} for name in whole if name != "state_dict"]
    changed = [{"state_dict": weights}, {"hyper_parameters": {"n_layers": "x"}}, {"batches": batches}]
    changed += [{"batches": foreign}, {"batches": []}, {"seeds": []}, {"batches": None}]
    for record in (*partial, *({**whole, **change} for change in changed)):
        torch.save(record, saved)
        outcome = run("replay", tmp_path / "run")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
        assert f"run={saved}: expected a whole record of a step; " in outcome.err
    for size in (0, 10, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:size])
        outcome = run("replay", tmp_path / "run")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome


def test_a_run_without_such_a_step_has_nothing_to_replay(tmp_path: Path) -> None:
    outcome = run("replay", tmp_path)
    assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
    assert str(tmp_path) in outcome.err


# -- workers and disks


def workers_of(child: Child) -> list[int]:
    """Worker processes of a run."""
    pid = child.process.pid
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_worker_that_is_killed_is_named_with_its_cause(fit: list[str], tmp_path: Path) -> None:
    if not Path("/proc/self/task").is_dir():
        pytest.skip("only Linux lists the children of a process")
    child = launch([*fit, ENDLESS, "--data.num_workers=2"], tmp_path / "log")
    assert child.wait_for("checkpoint", 1)
    victim = workers_of(child)[-1]
    os.kill(victim, signal.SIGKILL)
    assert child.wait() == 4, child.log.read_text()
    last = child.log.read_text().splitlines()[-1]
    assert last.startswith(f"lightning-metatok: error: data worker {victim} is killed by signal: Killed; ")
    assert "Traceback" not in child.log.read_text()
    assert newest_valid(tmp_path / "run" / "checkpoints", lambda _: None) is not None


def test_workers_end_with_a_run_that_is_killed(fit: list[str], tmp_path: Path) -> None:
    if not Path("/proc/self/task").is_dir():
        pytest.skip("only Linux lists the children of a process")
    child = launch([*fit, ENDLESS, "--data.num_workers=2"], tmp_path / "log")
    assert child.wait_for("checkpoint", 0)
    workers = workers_of(child)
    assert len(workers) >= 2
    child.strike(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    until = time.monotonic() + 10
    while left := [pid for pid in workers if _runs(pid)]:
        assert time.monotonic() < until, f"{left} are left"
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    try:
        return "State:\tZ" not in status.read_text()  # one that waits to be buried is dead
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_folder_that_may_no_longer_be_written_costs_nothing_valid(
    undisturbed: Undisturbed, small_disk: Path, tmp_path: Path
) -> None:
    whole, _ = undisturbed("task")
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoints.parent.mkdir()
    checkpoints.symlink_to(small_disk)
    command = [*undisturbed.commands["task"], f"--run_dir={tmp_path / 'run'}", "--ckpt_path=auto"]
    child = launch(command, tmp_path / "log")
    assert child.wait_for("training", 4)  # the first checkpoint is complete
    child.strike(signal.SIGSTOP)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    child.strike(signal.SIGCONT)
    assert child.wait() == 2, child.log.read_text()
    assert "Read-only file system" in child.log.read_text().splitlines()[-1]
    assert "Traceback" not in child.log.read_text()
    assert fault_of((checkpoints / "last.ckpt").resolve()) is None
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    child = launch(command, tmp_path / "log")
    assert child.wait() == 0, child.log.read_text()
    assert differences(tmp_path / "run", whole) == []


def test_an_explicit_older_checkpoint_takes_the_younger_ones_away(fit: list[str], tmp_path: Path) -> None:
    """As the help of --ckpt_path says; another folder leaves them alone."""
    succeed(*fit, "--checkpoint.keep_last=3")
    folder = tmp_path / "run" / "checkpoints"
    old = folder / "step-4.ckpt"
    assert (folder / "step-12.ckpt").exists()
    elsewhere = [*fit[:-1], f"--run_dir={tmp_path / 'other'}", "--checkpoint.keep_last=3"]
    succeed(*elsewhere, f"--ckpt_path={old}", "--trainer.max_steps=5", "--allow_changed=[model.optimizer.*]")
    assert (folder / "step-12.ckpt").exists()
    shutil.rmtree(tmp_path / "other")
    succeed(*fit, f"--ckpt_path={old}", "--trainer.max_steps=5", "--allow_changed=[model.optimizer.*]")
    assert {path.stem for path in folder.glob("step-*.json")} == {"step-4", "step-5"}
    assert [step for step, _ in curve(tmp_path / "run", "loss/train")] == [1, 2, 3, 4, 5]
