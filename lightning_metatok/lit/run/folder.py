"""One run, one folder: config.yaml (a runnable copy), tokenizer.json, metrics.jsonl, checkpoints/ and events."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from lightning_metatok.errors import UserError
from lightning_metatok.event_file import PATTERN
from lightning_metatok.files import write_atomically
from lightning_metatok.lit.checkpoints import CHECKPOINTS, CONFIG
from lightning_metatok.yaml_files import as_text, read_text

FILES = (CONFIG, "tokenizer.json", "metrics.jsonl", "arm.json", "environment.json", "run.lock", "run.png",
         "ablation.png")  # fmt: skip
FOLDERS = (CHECKPOINTS, "nonfinite", "logs", "put-aside")
"""What lies in a run folder. A fit that is refused before its first step has made files alone."""


def check_places(folder: Path) -> None:
    """Refuse what a run could not write over or into.

    Raises:
        UserError: a folder stands where a file belongs, or the other way round, or a link leads nowhere.
    """
    for name in (*FILES, *(path.name for path in folder.glob(PATTERN))):
        if (folder / name).is_dir():
            raise UserError(f"run_dir={folder}: {name}: expected a file, this is a folder")
    for name in FOLDERS:
        if os.path.lexists(folder / name) and not (folder / name).is_dir():
            what = "a file" if (folder / name).exists() else f"a link to {os.readlink(folder / name)}, which is missing"
            raise UserError(f"run_dir={folder}: {name}: expected a folder, this is {what}")


class Claim:
    """Gives a new run folder back where the run is refused before its first step: nothing of it stays.

    Only what a fit writes before its first step is taken away, and only from a folder that was new or empty and that
    this process holds: of two that begin at once, the one that is refused must leave the other's files alone.
    """

    def __init__(self, holds: Callable[[Path], bool] = lambda folder: True) -> None:
        """`holds`: whether this process holds the lock of a folder."""
        self.holds = holds
        self.folder: Path | None = None
        self.steps: Callable[[], int] = lambda: 0
        self._made: list[Path] = []

    def watch(self, folder: Path) -> None:
        """Remember what of `folder` and above it is not there yet; call it before any of that is made."""
        self._wanted = folder
        self._made = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]

    def take(self, folder: Path) -> None:
        """`folder` is the one; where it holds something that this run did not make, it is left alone."""
        if not folder.is_dir() or not any(folder.iterdir()):
            self.folder = folder
            if folder != self._wanted:  # that holds a run; this one was made beside it
                self._made = [folder]

    def __enter__(self) -> "Claim":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, UserError | OSError) or self.steps() > 0:
            return
        with suppress(OSError):
            if self.folder is not None and self.folder.is_dir() and self.holds(self.folder):
                for path in (*(self.folder / name for name in FILES), *self.folder.glob(PATTERN)):
                    path.unlink(missing_ok=True)
            for path in self._made:
                path.rmdir()  # it goes only if it is empty


def claim_run_folder(wanted: str | Path, *, resume_from: str | Path | None = None) -> Path:
    """Make the folder of a new run, or return the folder that a resumed run goes on in.

    A folder that already holds a run is never written over: the new run takes `wanted-2`, `wanted-3`, ... Two
    processes that ask at once get different folders, because each name is taken with an exclusive mkdir.

    Raises:
        UserError: the folder cannot be made.
    """
    wanted = Path(wanted)
    if resume_from is not None:
        start = Path(resume_from)  # as it is written, too: checkpoints/ may be a link to another disk
        if start.resolve().is_relative_to(wanted.resolve()) or start.absolute().is_relative_to(wanted.absolute()):
            return wanted
    if wanted.exists() and not wanted.is_dir():
        raise UserError(f"run_dir={wanted}: expected a folder, this is a file")
    candidate, number = wanted, 1
    try:
        candidate.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                candidate.mkdir()
                return candidate
            except FileExistsError:
                if candidate.is_dir() and not any(candidate.iterdir()):
                    return candidate
                number += 1
                candidate = wanted.with_name(f"{wanted.name}-{number}")
    except OSError as error:
        raise UserError(f"run_dir={wanted}: cannot make this folder: {error.strerror}") from error


def write_config(folder: Path, text: str, step: int) -> None:
    """Write config.yaml of a run that starts, or goes on at `step`: it says what the run does from now on.

    What it said before stays, as config-before-step-N.yaml. How this start came about (`ckpt_path`, `allow_changed`)
    is no property of a run that goes on: these stay as they were when it began.
    """
    path = folder / CONFIG
    if path.exists():
        before = path.read_text(encoding="utf-8", errors="replace")
        try:
            was = dict(read_text(before, str(path)))
        except UserError:  # whatever it is, it is kept
            was = {}
        content = dict(read_text(text, str(path)))
        content |= {key: was[key] for key in ("ckpt_path", "allow_changed") if key in was}
        if content == was:
            return
        stem, number = f"config-before-step-{step}", 1
        while (kept := folder / f"{stem}{'' if number == 1 else f'-{number}'}.yaml").exists():
            number += 1
        write_atomically(kept, before)
        head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
        text = head + as_text(content)
    write_atomically(path, text)
