"""Worker processes end with the run that they work for, however it ends."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when the one that made it dies."""


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
