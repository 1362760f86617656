"""`sweep cancel` ends a sweep's processes, those that a killed one left behind among them, and no stranger's."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightning_metatok.cli import main
from lightning_metatok.cli.sweep_file import Sweep, read_sweep
from lightning_metatok.sweep.folder import begin
from lightning_metatok.sweep.processes import Process, start_of
from lightning_metatok.sweep.record import State
from tests.cli.test_sweep import refused, write

HERE = socket.gethostname()


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path) -> Sweep:
    """A sweep of four runs, of which none is at work."""
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, repository)
    sweep = read_sweep(file, None)
    sweep.folder.write_plan(sweep.runs, file.read_text(), sweep.code, [], file.name)
    return sweep


@pytest.fixture
def sleeper() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Makes processes that end by a signal alone."""
    made = []

    def make() -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return made[-1]

    yield make
    for process in made:
        process.kill()
        process.wait()


def is_of(process: subprocess.Popen[bytes]) -> Process:
    """How a record names it."""
    return Process(process.pid, HERE, start_of(process.pid) or "")


def test_runs_whose_sweep_was_killed_are_found_and_ended(
    started: Sweep, sleeper: Callable[[], subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    left, earlier = sleeper(), sleeper()
    begin(started.folder, started.runs[0].name, None, is_of(left))
    begin(started.folder, "of-an-earlier-version-0123456789", None, is_of(earlier))
    assert main(["sweep", "cancel", str(started.file)]) == 0
    out = capsys.readouterr().out
    assert f"process {left.pid}, whose sweep is gone, ends at its next checkpoint" in out
    assert "2 runs cancelled: 2 on this machine, 0 in SLURM" in out
    assert left.wait(10) == earlier.wait(10) == -signal.SIGTERM
    assert main(["sweep", "cancel", str(started.file)]) == 0
    assert "0 runs cancelled: 0 on this machine, 0 in SLURM" in capsys.readouterr().out


@pytest.mark.parametrize("owner", ["pid", "text", "nothing", "[]"])
def test_strangers_that_have_the_numbers_of_a_sweep_s_processes_are_left_alone(
    started: Sweep,
    sleeper: Callable[[], subprocess.Popen[bytes]],
    capsys: pytest.CaptureFixture[str],
    owner: str,
) -> None:
    stranger, other = sleeper(), sleeper()
    begin(started.folder, started.runs[0].name, None, Process(stranger.pid, HERE, "another start"))
    contents = {
        "pid": json.dumps({"pid": other.pid, "host": HERE, "start": "another start"}),
        "text": f"process {other.pid} on {HERE}\n",
        "nothing": "",
        "[]": "[]",
    }
    (started.folder.path / "owner").write_text(contents[owner])
    assert main(["sweep", "cancel", str(started.file)]) == 0
    assert "0 runs cancelled" in capsys.readouterr().out
    assert (stranger.poll(), other.poll()) == (None, None)
    assert started.folder.state(started.runs[0].name).state == "died"


def test_the_process_that_runs_a_sweep_is_told_alone_and_what_it_started_is_counted(
    started: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    code = (
        "import subprocess, sys, time; child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True)\n"
        "try: time.sleep(60)\nfinally: child.kill()"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    begin(started.folder, started.runs[0].name, None, Process(child, HERE, start_of(child) or ""))
    me = is_of(owner)  # type: ignore[arg-type]
    (started.folder.path / "owner").write_text(json.dumps({"pid": me.pid, "host": me.host, "start": me.start}))
    try:
        assert main(["sweep", "cancel", str(started.file)]) == 0
        out = capsys.readouterr().out
        assert f"process {owner.pid}, which runs this sweep, ends its runs" in out
        assert "1 runs cancelled: 1 on this machine" in out
        assert "whose sweep is gone" not in out
        assert owner.wait(10) == -signal.SIGTERM
        assert start_of(child) is not None  # its owner would have ended it
    finally:
        owner.kill()
        owner.stdout.close()
        os.kill(child, signal.SIGKILL)


def test_processes_of_other_machines_and_of_slurm_take_no_signal(
    started: Sweep, sleeper: Callable[[], subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere, of_slurm, ended = sleeper(), sleeper(), sleeper()
    names = [run.name for run in started.runs]
    begin(started.folder, names[0], None, Process(elsewhere.pid, "elsewhere", start_of(elsewhere.pid) or ""))
    begin(started.folder, names[1], "7_0", is_of(of_slurm))
    mine = is_of(ended)
    started.folder.write_state(names[2], State("stopped", 1, mine.pid, mine.host, process_start=mine.start))
    (started.folder.path / "owner").write_text(json.dumps({"pid": 1, "host": "elsewhere", "start": "x"}))
    assert main(["sweep", "cancel", str(started.file)]) == 0
    out = capsys.readouterr().out
    assert "process 1 on elsewhere runs this sweep; cancel it there" in out
    assert "0 runs cancelled" in out
    assert [process.poll() for process in (elsewhere, of_slurm, ended)] == [None, None, None]
    assert started.folder.owner() is None


def test_another_sweep_s_folder_is_refused(
    started: Sweep, tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(started.file.read_text())
    for verb in ("run", "status", "cancel", "retry", "collect"):
        assert "the sweep of small.yaml lives here; expected a folder of other.yaml" in refused(
            capsys, verb, other, f"--folder={started.folder.path}"
        )
