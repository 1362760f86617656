"""Runs as processes of this machine, a few at a time, each on processors of its own.

One failure does not stop the rest. A signal goes on to the runs, which take a checkpoint and end; the next `sweep run`
goes on with them.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_metatok.runtime import usable_cores
from lightning_metatok.sweep.expand import PlannedRun
from lightning_metatok.sweep.folder import SweepFolder, begin
from lightning_metatok.sweep.processes import Process, start_of
from lightning_metatok.sweep.quoting import on_search_path

POLL_S = 0.2

Watch = Callable[[dict[str, float], int], None]
"""Called now and then: names of those that run, with the time when they began, and how many wait."""


def run_locally(
    folder: SweepFolder,
    runs: Sequence[PlannedRun],
    code: Path,
    workers: int,
    watch: Watch = lambda running, left: None,
) -> None:
    """Run all of `runs`; what became of each stands in its state.

    Each run is noted as soon as its process is there: should this one be killed, `sweep cancel` finds it.

    Args:
        folder: of the sweep. runs: those to run. code: the snapshot that they run. workers: runs at a time.
        watch: shows how it goes.
    """
    processors = usable_cores()
    share = max(1, len(processors) // workers)
    free = deque({processors[(i * share + j) % len(processors)] for j in range(share)} for i in range(workers))
    waiting = deque(runs)
    running: dict[str, tuple[subprocess.Popen[bytes], set[int], float]] = {}
    # A sweep under nohup stays deaf to its terminal.
    heeded = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _interrupt) for number in heeded}
    try:
        while waiting or running:
            while waiting and free:
                run, cores = waiting.popleft(), free.popleft()
                process = start(folder, run.name, code, cores)
                running[run.name] = process, cores, time.time()
                if (began := start_of(process.pid)) is not None:
                    begin(folder, run.name, None, Process(process.pid, socket.gethostname(), began))
            watch({name: begun for name, (_, _, begun) in running.items()}, len(waiting))
            time.sleep(POLL_S)
            for name in [name for name, (process, _, _) in running.items() if process.poll() is not None]:
                _, cores, _ = running.pop(name)
                free.append(cores)
        watch({}, 0)
    except BaseException:
        for process, _, _ in running.values():
            process.terminate()
        for process, _, _ in running.values():
            process.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start(
    folder: SweepFolder,
    name: str,
    code: Path,
    cores: set[int],
) -> subprocess.Popen[bytes]:
    """Start a run; its threads and it itself keep to `cores`, and it runs `code`.

    A sweep may run inside a job of SLURM, in a notebook or a batch script: its runs are no tasks of that job.
    """
    outside = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
    return subprocess.Popen(
        [*interpreter(), "sweep", "exec", str(folder.path), name],
        env={**outside, **environment(code, len(cores))},
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches the sweep alone, which passes on what the runs understand
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if hasattr(os, "sched_setaffinity") else None,
    )


def interpreter() -> list[str]:
    """Python, on the package of PYTHONPATH: -P keeps the current folder, which may hold newer code, out of the way."""
    return [sys.executable, "-P", "-m", "lightning_metatok"]


def environment(code: Path, threads: int) -> dict[str, str]:
    """Variables of a run.

    Raises:
        UserError: PYTHONPATH cannot hold the folder of the code.
    """
    folder = on_search_path(str(code.resolve()), "folder")
    path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
