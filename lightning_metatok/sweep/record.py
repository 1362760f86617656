"""What became of one run: the record that its process writes, and the last words of what it logged."""

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lightning_metatok.sweep.processes import Process

RUNNING, DONE, FAILED, STOPPED = "running", "done", "failed", "stopped"
"""States that a run's process writes. A signal stopped it: it goes on where its checkpoint is."""
WAITING, DIED, DAMAGED, QUEUED = "waiting", "died", "damaged", "queued"
"""States that are read off: nothing written yet; the process is gone; files are missing; SLURM has it."""
UNFINISHED = (WAITING, STOPPED, DIED)
"""What `run` starts. What failed would fail again: `retry` starts that."""
FAULTY = (FAILED, DAMAGED)

UNREADABLE = (OSError, ValueError, TypeError, KeyError, RecursionError)
"""What comes of reading a file of JSON that is not there, not JSON, or not what was expected."""
PIECE = 1 << 16
"""Bytes that are read at once, from the end of a file."""


@dataclass(frozen=True)
class State:
    """What is known of a run. Times are seconds since 1970; `job` is SLURM's, such as 12_3; `attempt` counts from 1."""

    state: str = WAITING
    attempt: int = 0
    pid: int | None = None
    host: str | None = None
    job: str | None = None
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    spent_s: float = 0.0
    """Seconds of all attempts that ended."""
    why: str = ""
    process_start: str = ""
    """Of the process `pid`, see `processes`."""

    @property
    def process(self) -> Process | None:
        """The process that runs it, on this or another machine."""
        if self.pid is None or self.host is None:
            return None
        return Process(self.pid, self.host, self.process_start)

    def lives(self) -> bool:
        """Whether its process is there still."""
        return self.process is not None and self.process.lives()


KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("state", "why", "process_start"), str),
    **dict.fromkeys(("host", "job"), (str, type(None))),
    **dict.fromkeys(("pid", "exit_code"), (int, type(None))),
    **dict.fromkeys(("started", "ended"), (int, float, type(None))),
    "attempt": int,
    "spent_s": (int, float),
}
assert set(KINDS) == {field.name for field in fields(State)}


def read_state(path: Path) -> State:
    """Return the record in a file, WAITING where there is none, and DAMAGED where it cannot be read."""
    try:
        content = json.loads(path.read_bytes())
        if content["state"] not in (RUNNING, DONE, FAILED, STOPPED):
            raise ValueError(content["state"])
        if wrong := [key for key, value in content.items() if not isinstance(value, KINDS[key])]:
            raise ValueError(wrong)
        return State(**content)
    except FileNotFoundError:
        return State()
    except UNREADABLE:
        return State(DAMAGED, why=f"states/{path.name} cannot be read")


def last_values(run_folder: Path, wanted: Collection[str] | None = None) -> dict[str, Any] | None:
    """The last value of everything that a run logged, or at least of what is `wanted`; None where it cannot be read.

    For `wanted` the file is read from its end, as far as it takes to find them. So damage before that goes unseen.
    """
    path = run_folder / "metrics.jsonl"
    values: dict[str, Any] = {}
    try:
        if wanted is None:
            for line in _objects(path.read_bytes()):
                values |= line
            return values
        missing = set(wanted)
        for text in _lines_backwards(path):
            values = json.loads(text) | values
            missing -= values.keys()
            if not missing:
                break
    except UNREADABLE:
        return None
    return values


def _objects(content: bytes) -> list[dict[str, Any]]:
    """The objects in lines of JSON, read in one go: a loop over 800,000 lines takes three times as long."""
    lines = [line for line in content.decode().split("\n") if line and not line.isspace()]
    objects: list[dict[str, Any]] = json.loads(f"[{','.join(lines)}]")
    if len(objects) != len(lines):  # halves of an object, which make one together
        raise ValueError(f"{len(objects)} objects in {len(lines)} lines")
    return objects


def last_lines(path: Path) -> list[str]:
    """The lines in the last 8 kB of a file, the last one first; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            return file.read().decode("utf-8", "replace").split("\n")[::-1]
    except OSError:
        return []


def _lines_backwards(path: Path) -> Iterator[bytes]:
    """Lines, the last one first, without empty ones."""
    with path.open("rb") as file:
        place, rest = file.seek(0, os.SEEK_END), b""
        while place:
            step = min(PIECE, place)
            place -= step
            file.seek(place)
            rest, *lines = (file.read(step) + rest).split(b"\n")
            yield from (line for line in reversed(lines) if line.strip())
        if rest.strip():
            yield rest
