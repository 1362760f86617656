"""What disks, copies and people do to the files of a run that has stopped, one kind a function."""

import shutil
from collections.abc import Callable
from pathlib import Path

METRICS = "metrics.jsonl"
EARLY = 0.02
"""Of an event file, most of which are pictures at its end: a place before the last checkpoint."""


def event_file(run: Path) -> Path:
    """The one event file of a run."""
    (path,) = run.glob("events.out.tfevents.*")
    return path


def cut(path: Path, share: float) -> None:
    """Keep a share of a file's bytes."""
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def scramble(path: Path, share: float = 0.5) -> None:
    """Other bytes behind a share of them; the size stays."""
    content = bytearray(path.read_bytes())
    at = int(share * len(content))
    content[at : at + 40] = bytes(byte ^ 0x55 for byte in content[at : at + 40])
    path.write_bytes(content)


def lose_lines(run: Path) -> None:
    """The last lines of metrics.jsonl, as after a power loss."""
    lines = (run / METRICS).read_bytes().splitlines(keepends=True)
    (run / METRICS).write_bytes(b"".join(lines[: len(lines) // 2]))


def copy_events(run: Path) -> None:
    """A second event file, older by its name."""
    path = event_file(run)
    shutil.copyfile(path, path.with_name("events.out.tfevents.1.elsewhere.2"))


LOGS: dict[str, Callable[[Path], object]] = {
    "fewer lines": lose_lines,
    "half a line": lambda run: cut(run / METRICS, 0.71),
    "no metrics.jsonl": lambda run: (run / METRICS).unlink(),
    "garbage in metrics.jsonl": lambda run: scramble(run / METRICS),
    "no event file": lambda run: event_file(run).unlink(),
    "a cut event file": lambda run: cut(event_file(run), EARLY),
    "two event files": copy_events,
    "garbage in the event file": lambda run: scramble(event_file(run), EARLY),
}


def newest(run: Path, suffix: str = ".ckpt") -> Path:
    """A file of the newest checkpoint."""
    return (run / "checkpoints" / "last.ckpt").resolve().with_suffix(suffix)


def folder_instead(path: Path) -> None:
    """A folder with something in it where a file was."""
    path.unlink()
    path.mkdir()
    (path / "note").write_text("mine")


CHECKPOINTS: dict[str, Callable[[Path], object]] = {
    "cut": lambda run: cut(newest(run), 0.5),
    "garbage": lambda run: scramble(newest(run)),
    "missing": lambda run: newest(run).unlink(),
    "a folder": lambda run: folder_instead(newest(run)),
    "no manifest": lambda run: newest(run, ".json").unlink(),
    "garbage in the manifest": lambda run: scramble(newest(run, ".json")),
    "an empty manifest": lambda run: newest(run, ".json").write_bytes(b""),
    "no weights": lambda run: newest(run, ".safetensors").unlink(),
}
