"""One process a run: who trains in a folder holds a lock on `run.lock` there, and writes who it is into it.

The lock is the kernel's (POSIX record locks: no child inherits one, and NFS keeps them, too), so that it ends with its
owner, however that ends: nothing stale is left, neither on this machine nor where a job comes back on another one.
"""

import errno
import json
import os
import socket
import sys
import time
from pathlib import Path

from lightning_metatok.errors import UserError

LOCK = "run.lock"
BUSY = (errno.EACCES, errno.EAGAIN)
REQUEUE_WAIT_S = 60.0
"""How long a job that SLURM started again waits for its former self, which a node that failed may still be ending."""
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class RunLock:
    """Holds run folders until it is closed. Never open `run.lock` elsewhere in a process that holds it: closing any
    descriptor of a file gives up every record lock of the process on it."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}
        self._unlocked: set[Path] = set()

    def take(self, folder: Path) -> None:
        """Hold `folder`, which exists; nothing more if it is held already, nothing on Windows or without locks.

        Raises:
            UserError: another process holds it; its pid and host are named.
        """
        path = folder.resolve() / LOCK
        if sys.platform == "win32":
            self._unlocked.add(path.parent)
            return
        if path in self._held:
            return
        import fcntl

        if path.is_dir():
            raise UserError(f"run_dir={folder}: {LOCK}: expected a file, this is a folder")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        patience = time.monotonic() + (REQUEUE_WAIT_S if os.environ.get("SLURM_RESTART_COUNT") else 0.0)
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno in BUSY and time.monotonic() < patience:
                    time.sleep(0.5)
                    continue
                owner = os.read(file, 4096)
                os.close(file)
                if error.errno in BUSY:
                    raise UserError(
                        f"run_dir={folder}: {_named(owner)} trains here; expected a folder of its own"
                    ) from error
                if error.errno in UNSUPPORTED:
                    self._unlocked.add(path.parent)
                    return
                raise
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        self._held[path] = file

    def holds(self, folder: Path) -> bool:
        """Whether this process holds `folder`; where there are no locks, nobody else can."""
        return folder.resolve() / LOCK in self._held or folder.resolve() in self._unlocked

    def close(self) -> None:
        """Give up every folder; their files stay, empty: taking one away could break the lock of the next process."""
        for file in self._held.values():
            os.ftruncate(file, 0)
            os.close(file)
        self._held = {}

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _named(owner: bytes) -> str:
    try:
        who = json.loads(owner)
        return f"process {who['pid']} on {who['host']}"
    except (ValueError, KeyError, TypeError):  # it has taken the lock this moment
        return "another process"
