"""What a checkpoint knows about the logs beside it, so that damage done to them since is mended, or said and marked.

    metrics.jsonl     its bytes at the checkpoint: how many, their SHA-256, and the last 64 kB of them
    events.out...     the same

A run that goes on cuts them to that length. Where what is left is not what it was, the bytes that the checkpoint
carries mend it if the damage lies within them. If not, what can still be read stays: whole lines, whole records. Then
the gap is said in a warning, as `log/lost_bytes` in metrics.jsonl and as text in TensorBoard. The damaged file is put
aside.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_metatok.data.cache import sync
from lightning_metatok.event_file import PATTERN, whole_records
from lightning_metatok.lit.checkpoints.aside import put_aside
from lightning_metatok.lit.checkpoints.io import write_file

METRICS = "metrics.jsonl"
LOST = "log/lost_bytes"
"""In metrics.jsonl, at the step of the checkpoint behind a gap: bytes that both logs together lost."""
TAIL = 2**16
PIECE = 2**20


class LogState:
    """Describes the logs of a folder again and again; what was read before is not read again."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[int, Any]] = {}

    def __call__(self, folder: Path) -> dict[str, Any]:
        """`logs`: name -> bytes; `log_ends`: name -> sha256 and the last bytes. They are on the disk by then."""
        lengths, ends = {}, {}
        for path in _files(folder):
            if path.exists():
                sync(path)
                size, digest = self._digest(path)
                lengths[path.name] = size
                ends[path.name] = {"sha256": digest, "tail": _tail(path, size)}
        return {"logs": lengths, "log_ends": ends}

    def _digest(self, path: Path) -> tuple[int, str]:
        done, running = self._read.get(path, (0, None))
        if running is None or path.stat().st_size < done:
            done, running = 0, hashlib.sha256()
        with path.open("rb") as file:
            file.seek(done)
            while piece := file.read(PIECE):
                running.update(piece)
                done += len(piece)
        self._read[path] = done, running
        return done, running.hexdigest()


def mend_logs(
    folder: Path,
    saved: Mapping[str, Any],
    step: int,
    warn: Callable[[str], object],
) -> tuple[int, list[str]]:
    """Bring the logs of `folder` to what they were at a checkpoint.

    Args:
        saved: what `LogState` said then; `log_ends` is missing in old checkpoints. step: that of the checkpoint.
        warn: hears of all that was not as it should be.

    Returns:
        bytes that are lost, and what to write about them; 0 and nothing where the logs are what they were.
    """
    lost, gaps = 0, []
    lengths, ends = saved.get("logs", {}), saved.get("log_ends", {})
    for path in _files(folder):
        if path.name not in lengths:
            if step == 0 or path.name == METRICS:  # it began after the checkpoint: all of it is made anew
                path.unlink()
            else:
                warn(f"{path} is none of this run's logs: it is now {put_aside(path)}")
    for name, size in lengths.items():
        path = folder / name
        content = path.read_bytes() if path.exists() else None
        end = ends.get(name)
        whole = _mended(content or b"", size, end)
        if whole is not None and content is not None and content.startswith(whole):
            if len(content) > size:
                os.truncate(path, size)
            continue
        kept = whole if whole is not None else _readable(content or b"", name, size, step)
        said = "missing" if content is None else "damaged" if len(content) >= size else f"{size - len(content)} B short"
        if content is not None and not kept.startswith(content):
            said += f", the old file is now {put_aside(path, copy=bool(kept))}"
        if kept:
            write_file(path, lambda target, kept=kept: target.write_bytes(kept))  # type: ignore[misc]
        if whole is not None or (end is not None and hashlib.sha256(kept).hexdigest() == end["sha256"]):
            warn(f"{path} was {said}; mended from the checkpoint of step {step}")
            continue
        lost += size - min(len(kept), size)
        gaps.append(f"{name} was {said}; {len(kept)} of {size} bytes up to step {step} are left")
        warn(f"{path} was {said}; {len(kept)} of {size} bytes up to step {step} are left, the gap is marked")
    return lost, gaps


def _mended(content: bytes, size: int, end: Mapping[str, Any] | None) -> bytes | None:
    """The `size` bytes that a log had, from what is left of it and its `end`; None if they do not give them."""
    if end is None:
        return content[:size] if len(content) >= size else None
    tail = end["tail"].numpy().tobytes()
    for candidate in (content[:size], content[: size - len(tail)] + tail):
        if len(candidate) == size and hashlib.sha256(candidate).hexdigest() == end["sha256"]:
            return candidate
    return None


def _readable(content: bytes, name: str, size: int, step: int) -> bytes:
    """What can be read of a damaged log of `size` bytes, up to `step`."""
    if name != METRICS:
        return content[: whole_records(content[:size])]
    lines = [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
    rows = [(row, line) for line in lines if (row := row_of(line)) is not None]
    # A mark of this very step is made anew.
    return b"".join(line for row, line in rows if row["step"] <= step and not (row["step"] == step and LOST in row))


def row_of(line: str | bytes) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None where it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    sound = isinstance(row, dict) and type(row.get("step")) is int
    return row if sound and all(isinstance(value, int | float) for value in row.values()) else None


def _files(folder: Path) -> list[Path]:
    """The logs that are there; one that is a link to nothing, too."""
    return [path for path in (folder / METRICS, *sorted(folder.glob(PATTERN))) if os.path.lexists(path)]


def _tail(path: Path, size: int) -> torch.Tensor:
    with path.open("rb") as file:
        file.seek(max(0, size - TAIL))
        return torch.from_numpy(np.frombuffer(file.read(min(size, TAIL)), dtype=np.uint8).copy())
