"""The folder of a run's checkpoints: which there are, which of them counts, and which stay."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lightning_metatok.data.cache import sync
from lightning_metatok.lit.checkpoints.aside import put_aside
from lightning_metatok.lit.checkpoints.io import NAME, TEMPORARY, RunCheckpointIO, fault_of, read_manifest, unfinished

LAST = "last.ckpt"
"""A link to the newest that is complete."""
LEFT = re.compile(rf"{re.escape(TEMPORARY)}.*|\.tmp\w{{6}}")
"""What a kill leaves: files of `checkpoints.io`, and the temporary one that safetensors makes for itself."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint on the disk.

    Attributes:
        path: its `.ckpt`. step: optimiser steps done. loss: validation loss where it was saved, if there was one.
    """

    path: Path
    step: int
    loss: float | None


def link_last(path: Path) -> None:
    """Point `last.ckpt` at `path`, in one step."""
    temporary = path.with_name(f"{TEMPORARY}{LAST}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(path.name)
    if path.with_name(LAST).exists() and not path.with_name(LAST).is_symlink():
        put_aside(path.with_name(LAST))  # a copy that followed links: it may be the only one of its step
    os.replace(temporary, path.with_name(LAST))
    sync(path.parent)


def checkpoints(folder: Path) -> list[Path]:
    """Every `step-N.ckpt` in `folder` of which anything is there, valid or not, newest step first."""
    found = {int(match[1]) for file in _names(folder) if (match := NAME.fullmatch(file))}
    return [folder / f"step-{step}.ckpt" for step in sorted(found, reverse=True)]


def newest_valid(folder: Path, warn: Callable[[str], object]) -> Path | None:
    """The newest checkpoint in `folder` that counts; `warn` hears of every newer one that does not."""
    found, faults = look_through(folder)
    for path, fault in faults.items():
        warn(f"{path} is skipped: {fault}")
    return found


def look_through(folder: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest checkpoint in `folder` that counts, and why every newer one does not."""
    faults: dict[Path, str] = {}
    for path in checkpoints(folder):
        if (fault := fault_of(path)) is None:
            return path, faults
        faults[path] = fault
    return None, faults


def prune(folder: Path, *, keep_last: int, keep_best: int) -> None:
    """Remove all but the newest `keep_last`, the best `keep_best` (-1: all), and what `last.ckpt` points at.

    Nothing goes unless one that stays is valid by its checksums; sizes alone decide which of them count.
    """
    saved = [one for one in map(_saved, checkpoints(folder)) if one is not None]
    losses = sorted((one for one in saved if one.loss is not None), key=lambda one: (one.loss, -one.step))
    keep = {one.path for one in (*saved[: max(1, keep_last)], *(losses[:keep_best] if keep_best >= 0 else losses))}
    keep.add((folder / LAST).resolve())
    going = [one.path for one in saved if not keep & {one.path, one.path.resolve()}]
    if going and any(fault_of(one.path) is None for one in saved if one.path not in going):
        for path in going:
            RunCheckpointIO().remove_checkpoint(path)


def forget_after(folder: Path, step: int) -> None:
    """Remove checkpoints of steps after `step`, and what kills left: a run that goes on at `step` makes them anew.

    Later ones that do not count although their writing ended are put aside.
    """
    start = folder / f"step-{step}.ckpt"
    if start.exists():  # first, so that last.ckpt never points at nothing
        link_last(start)
    elif (folder / LAST).is_symlink():
        (folder / LAST).unlink()
    for path in checkpoints(folder):
        if int(path.stem.removeprefix("step-")) <= step:
            continue
        if unfinished(path) or fault_of(path) is None:
            RunCheckpointIO().remove_checkpoint(path)
        else:
            for name in _names(folder):
                if NAME.fullmatch(name) and name.partition(".")[0] == path.stem:
                    put_aside(folder / name)
    for name in _names(folder):
        if LEFT.fullmatch(name):
            if (folder / name).is_dir():  # shards
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)


def _saved(path: Path) -> Saved | None:
    try:
        manifest = read_manifest(path)
        if any((path.parent / n).stat().st_size != file["size"] for n, file in manifest["files"].items()):
            return None
    except (OSError, ValueError):
        return None
    return Saved(path, manifest["step"], manifest.get("loss"))


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []
