"""Which process is meant: its number is given to another one as soon as it is gone, its number and start are not.

The start is text that is compared, never computed with. On Linux it is the boot and the clock ticks since then, from
/proc; elsewhere what `ps` says, to the second. Both can be read of any user's processes.
"""

import os
import socket
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROC = Path("/proc")
ENDED = "ZX"
"""States of a process that has ended, and whose parent has not asked how."""
HIDDEN = ""
"""The start of a process that is there, and that this user may not look at."""


@dataclass(frozen=True)
class Process:
    """A process of some machine."""

    pid: int
    host: str
    start: str

    @classmethod
    def this(cls) -> "Process":
        """The one that asks."""
        return cls(os.getpid(), socket.gethostname(), start_of(os.getpid()) or HIDDEN)

    def is_here(self) -> bool:
        """Whether it is one of this machine, so that it can be asked about, and sent a signal."""
        return self.host == socket.gethostname()

    def lives(self) -> bool:
        """Whether it is there still. One of another machine is believed to be, and one whose start nobody knows."""
        if not self.is_here():
            return True
        found = start_of(self.pid)
        return found is not None and (found == self.start or HIDDEN in (found, self.start))

    def send(self, number: int) -> bool:
        """Send a signal, and return whether this very process was there to take it.

        Raises:
            PermissionError: it is another user's.
        """
        if not self.is_here() or self.start == HIDDEN or start_of(self.pid) != self.start:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:  # it has ended since
            return False
        return True


def start_of(pid: int) -> str | None:
    """When process `pid` of this machine was started; None where there is none, or it has ended."""
    found = _look(pid)
    return None if found is None or (found[0] and found[0][0] in ENDED) else found[2]


def parent_of(pid: int) -> int:
    """The process that started `pid`, or took it over; 0 where that cannot be said."""
    found = _look(pid)
    return 0 if found is None else found[1]


def _look(pid: int) -> tuple[str, int, str] | None:
    """State, parent and start of a process; None where there is none."""
    if not (PROC / "self" / "stat").is_file():
        return _ask_ps(pid)
    try:
        # The second field is the program's name in brackets, and may hold anything.
        words = (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except PermissionError:
        return "", 0, HIDDEN
    except OSError:
        return None
    return words[0], int(words[1]), f"{_boot()}+{words[19]}"


@cache
def _boot() -> str:
    try:
        return (PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
    except OSError:  # some sandboxes hide it
        return "boot"


def _ask_ps(pid: int) -> tuple[str, int, str] | None:
    command = ["ps", "-o", "stat=,ppid=,lstart=", "-p", str(pid)]
    words = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split(maxsplit=2)
    return (words[0], int(words[1]), words[2].strip()) if len(words) == 3 else None
