"""Runs as processes of this machine, a few at a time, each on processors of its own.

One failure does not stop the rest. A signal goes on to the runs, which take a checkpoint and end; the next `sweep run`
goes on with them.
"""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning_metatok.runtime import usable_cores
from lightning_metatok.sweep.expand import PlannedRun
from lightning_metatok.sweep.folder import SweepFolder

POLL_S = 0.2

Watch = Callable[[dict[str, float], int], None]
"""Called now and then: names of those that run, with the time when they began, and how many wait."""


def run_locally(
    folder: SweepFolder, runs: Sequence[PlannedRun], code: Path, workers: int, watch: Watch = lambda running, left: None
) -> None:
    """Run all of `runs`; what became of each stands in its state.

    Args:
        folder: of the sweep. runs: those to run. code: the snapshot that they run. workers: runs at a time.
        watch: shows how it goes.
    """
    processors = usable_cores()
    share = max(1, len(processors) // workers)
    free = deque({processors[(i * share + j) % len(processors)] for j in range(share)} for i in range(workers))
    waiting = deque(runs)
    running: dict[str, tuple[subprocess.Popen[bytes], set[int], float]] = {}
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        while waiting or running:
            while waiting and free:
                run, cores = waiting.popleft(), free.popleft()
                running[run.name] = start(folder, run.name, code, cores), cores, time.time()
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
        signal.signal(signal.SIGTERM, before)


def start(folder: SweepFolder, name: str, code: Path, cores: set[int]) -> subprocess.Popen[bytes]:
    """Start a run; its threads and it itself keep to `cores`, and it runs `code`."""
    return subprocess.Popen(
        [*interpreter(), "sweep", "exec", str(folder.path), name],
        env={**os.environ, **environment(code, len(cores))},
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches the sweep alone, which passes on what the runs understand
        preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if hasattr(os, "sched_setaffinity") else None,
    )


def interpreter() -> list[str]:
    """Python, on the package of PYTHONPATH: -P keeps the current folder, which may hold newer code, out of the way."""
    return [sys.executable, "-P", "-m", "lightning_metatok"]


def environment(code: Path, threads: int) -> dict[str, str]:
    """Variables of a run."""
    path = os.pathsep.join(filter(None, [str(code.resolve()), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
