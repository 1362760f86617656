"""Prepared data on disk: built once, found again by fingerprint, never half-written.

    <cache>/tokens-3f2a.../           complete, because a rename put it there; holds manifest.json
    <cache>/tokens-3f2a....partial/   being built, or left by a build that was killed: swept by the next one
    <cache>/tokens-3f2a....lock       held while building, so that two processes do not build twice

A folder is written under its `.partial` name, flushed to the disk and renamed as a whole. Its manifest lists
the size of each file, so that a copy that lost a piece is rebuilt instead of read.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from lightning_metatok.errors import UserError
from lightning_metatok.files import CACHE_VARIABLE as ENVIRONMENT_VARIABLE
from lightning_metatok.files import cache_folder as cache_folder

DATA_VERSION = 1
"""Part of every fingerprint; raise it when the layout of prepared files or the way they are made changes."""

MANIFEST = "manifest.json"
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_WRITING = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG,
}  # fmt: skip


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """Return 32 hex digits that stand for `inputs` (anything JSON holds) and `DATA_VERSION`."""
    text = json.dumps({"data_version": DATA_VERSION, **inputs}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def prepared(root: Path, name: str, build: Callable[[Path], None]) -> Path:
    """Return the complete folder `root / name`, which `build(folder)` fills unless it is there already.

    Several processes may ask at once: one builds, the others wait and find it. If `build` raises,
    nothing stays.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    folder = root / name
    if is_complete(folder):
        return folder
    partial = root / f"{name}.partial"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{name}.lock"):
            if is_complete(folder):  # another process built it while this one waited
                return folder
            for leftover in (partial, folder):
                if leftover.exists():
                    shutil.rmtree(leftover)
            partial.mkdir()
            try:
                build(partial)
                seal(partial)
                os.rename(partial, folder)
                sync(root)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except OSError as error:
        if error.errno in FULL_DISK:
            raise UserError(
                f"no space left for prepared data in {root}; nothing half-written was kept: "
                f"free some space, or point data.cache_dir or ${ENVIRONMENT_VARIABLE} elsewhere"
            ) from error
        if error.errno in NO_WRITING and _touches(root, str(error.filename or "")):
            raise UserError(
                f"cannot write prepared data to {root} ({error.strerror}): "
                f"point data.cache_dir or ${ENVIRONMENT_VARIABLE} to a folder that you may write to"
            ) from error
        raise
    return folder


def _touches(root: Path, name: str) -> bool:
    """Return whether `name` is `root`, in it, or a folder above it that could not be made."""
    return name != "" and (Path(name).is_relative_to(root) or root.is_relative_to(name))


def is_complete(folder: Path) -> bool:
    """Return whether `folder` holds a manifest and every file in it, of the size written there."""
    try:
        sizes = json.loads((folder / MANIFEST).read_text())["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def seal(folder: Path) -> None:
    """Flush all files of `folder` to the disk, and write the manifest last."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for file in files:
        sync(file)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": {file.name: file.stat().st_size for file in files}}, indent=1))
    sync(manifest)
    sync(folder)


def sync(path: Path) -> None:
    """Wait until the file or folder `path` is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
