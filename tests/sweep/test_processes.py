"""A process is its number and its start: a number that went to another process is not it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from lightning_metatok.sweep import processes
from lightning_metatok.sweep.processes import HIDDEN, Process, parent_of, start_of

HERE = socket.gethostname()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A stranger that would end by SIGTERM."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture(params=["proc", "ps"])
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the start comes from: /proc, or `ps` where there is none."""
    if request.param == "ps":
        monkeypatch.setattr(processes, "PROC", processes.PROC / "nosuch")
    return str(request.param)


def test_a_process_is_known_while_it_lives_and_never_again(sleeper: subprocess.Popen[bytes], source: str) -> None:
    start = start_of(sleeper.pid)
    assert start
    time.sleep(1.1)  # ps tells seconds
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert start_of(sleeper.pid) == start != start_of(other.pid)
    other.kill()
    wait_for_zombie(other.pid)
    assert start_of(other.pid) is None  # it has ended, and nobody has waited for it
    other.wait()
    assert start_of(other.pid) is None
    assert parent_of(sleeper.pid) == os.getpid()
    assert parent_of(other.pid) == 0


def test_a_number_that_went_to_another_process_takes_no_signal(sleeper: subprocess.Popen[bytes], source: str) -> None:
    reused = Process(sleeper.pid, HERE, "another start")
    assert not reused.lives()
    assert not reused.send(signal.SIGTERM)
    assert not Process(sleeper.pid, HERE, HIDDEN).send(signal.SIGTERM)  # nothing is known of its start
    assert not Process(sleeper.pid, "elsewhere", start_of(sleeper.pid) or "").send(signal.SIGTERM)
    time.sleep(0.2)
    assert sleeper.poll() is None
    right = Process(sleeper.pid, HERE, start_of(sleeper.pid) or "")
    assert right.lives()
    assert right.send(signal.SIGTERM)
    assert sleeper.wait(10) == -signal.SIGTERM
    assert not right.lives()
    assert not right.send(signal.SIGTERM)


def test_a_process_of_another_machine_or_without_a_start_is_believed(sleeper: subprocess.Popen[bytes]) -> None:
    assert Process(1 << 30, "elsewhere", "x").lives()
    assert not Process(1 << 30, HERE, "x").lives()
    assert Process(sleeper.pid, HERE, HIDDEN).lives()
    assert not Process(1 << 30, HERE, HIDDEN).lives()
    assert Process.this().lives()
    assert Process.this() == Process(os.getpid(), HERE, start_of(os.getpid()) or "")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users")
def test_another_user_s_process_lives_and_takes_no_signal(sleeper: subprocess.Popen[bytes]) -> None:
    other = sleeper.pid if os.geteuid() == 0 else 1
    code = (
        "import signal, socket, sys\n"
        "from lightning_metatok.sweep.processes import Process, start_of\n"
        f"process = Process({other}, socket.gethostname(), start_of({other}))\n"
        "print(process.start != '', process.lives())\n"
        "try: process.send(signal.SIGTERM)\n"
        "except PermissionError: print('refused')\n"
    )
    if os.geteuid() == 0:
        code = f"import os; os.setgid(65534); os.setuid(65534)\n{code}"
        code = "import lightning_metatok.sweep.processes\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "refused"]
    assert sleeper.poll() is None


def test_a_process_that_hides_counts_as_there(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    def hidden(*_: object, **__: object) -> str:
        raise PermissionError

    monkeypatch.setattr(type(processes.PROC), "read_text", hidden)  # as under /proc with hidepid=1
    assert start_of(1) == HIDDEN
    assert Process(1, HERE, "x").lives()
    assert not Process(1, HERE, HIDDEN).send(signal.SIGTERM)


def wait_for_zombie(pid: int) -> None:
    """Until `pid` has ended."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
