"""Worker processes end with the run that they work for, however it ends."""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lightning_metatok.errors import WorkerError

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when the one that made it dies."""


def start_method(num_workers: int) -> str | None:
    """How workers are made: forked on Linux, from 3.14 on not Python's default there; None leaves it to Python.

    A forkserver would stand between a run and its workers: it outlives a run that is killed, and they with it.
    """
    return "fork" if num_workers and sys.platform == "linux" else None


def end_with_parent(worker: int) -> None:
    """Let the kernel kill this worker when its run is killed; a `worker_init_fn`. Does nothing outside Linux.

    torch's own watchdog does not end a worker that waits to send a large batch: it holds the reading end of the pipe
    itself, so that the write never fails, and stays for ever.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died in between
        os._exit(1)


@contextmanager
def name_dead_worker() -> Iterator[None]:
    """One line on a worker that died, in place of torch's traceback.

    Raises:
        WorkerError: a worker was killed or ended; its pid and the cause are named.
    """
    try:
        yield
    except RuntimeError as error:
        # torch knows the cause of the first one, and tells it in the exception below the one that it raises.
        for one in (error.__cause__, error.__context__, error):
            if found := re.match(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", str(one), re.DOTALL):
                fate = " ".join(found[2].split()).removesuffix(".")
                hint = "; the kernel kills so where memory is short" if fate.endswith("Killed") else ""
                raise WorkerError(
                    f"data worker {found[1]} {fate}{hint}; --ckpt_path=auto goes on, --data.num_workers=0 needs none"
                ) from error
        raise
