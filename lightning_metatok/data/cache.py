"""Prepared data on disk: built once, found again by fingerprint, never half-written.

    <cache>/tokens-3f2a.../           complete, because a rename put it there; holds manifest.json
    <cache>/tokens-3f2a....partial/   being built, or left by a build that was killed: the next one sweeps it or, with
                                      tokens, goes on from it
    <cache>/tokens-3f2a....lock       held while building, so that two processes do not build twice

A folder is written under its `.partial` name, flushed to the disk and renamed as a whole. Its manifest lists
the size and the checksum of each file. Every process that opens a folder reads all of it once (xxh3 runs as fast as
memory, and what training reads next is then in memory); a folder that is not what its manifest says, down to a
bit, is built again, with a line that says so. Processes that have the old files open keep them.
"""

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xxhash
from filelock import FileLock

from lightning_metatok.errors import OutOfReach, UserError
from lightning_metatok.files import CACHE_VARIABLE as ENVIRONMENT_VARIABLE
from lightning_metatok.files import cache_folder as cache_folder

DATA_VERSION = 3
"""Part of every fingerprint; raise it when the layout of prepared files or the way they are made changes."""

MANIFEST = "manifest.json"
MANIFEST_VERSION = 2
LARGEST_MANIFEST = 1 << 20
CHUNK = 1 << 22
"""Bytes read at once."""
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_WRITING = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG,
}  # fmt: skip


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """Return 32 hex digits that stand for `inputs` (anything JSON holds) and `DATA_VERSION`."""
    text = json.dumps({"data_version": DATA_VERSION, **inputs}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def prepared(root: Path, name: str, build: Callable[[Path], None], goes_on: bool = False) -> Path:
    """Return the complete folder `root / name`, which `build(folder)` fills unless it is there already.

    Several processes may ask at once: one builds, the others wait and find it. If `build` raises,
    nothing stays.

    Args:
        goes_on: `build` can go on from what it left when it was killed or told to stop, which then stays as
            `.partial`, for it alone. What is wrong with the data or the disk ends that, too.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    folder = root / name
    if damage(folder) is None:
        return folder
    partial, damaged = root / f"{name}.partial", root / f"{name}.damaged"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{name}.lock"):
            wrong = damage(folder)
            if wrong is None:  # another process built it while this one waited
                return folder
            if os.path.lexists(folder):
                print(f"lightning-metatok: warning: {folder}: {wrong}; prepared again", file=sys.stderr)
            if not (goes_on and partial.is_dir() and not partial.is_symlink()):
                _remove(partial)
            _remove(damaged)
            partial.mkdir(exist_ok=True)
            try:
                build(partial)
                seal(partial, name)
                # The old one stays until the new one is whole: other processes may open it at any time.
                if os.path.lexists(folder):
                    os.rename(folder, damaged)
                os.rename(partial, folder)
                sync(root)
            except BaseException as error:
                if not goes_on or (isinstance(error, UserError | OSError) and not isinstance(error, OutOfReach)):
                    shutil.rmtree(partial, ignore_errors=True)
                raise
            _remove(damaged)
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


def _remove(path: Path) -> None:
    """Remove the folder, file or link `path`, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def damage(folder: Path) -> str | None:
    """Return what is wrong with the prepared `folder` in a few words, or None: each file is as it was written."""
    manifest = folder / MANIFEST
    try:
        if not manifest.is_file() or manifest.stat().st_size > LARGEST_MANIFEST:
            return f"{MANIFEST} is missing or none"
        content = json.loads(manifest.read_text(encoding="utf-8"))
        if (content["version"], content["name"]) != (MANIFEST_VERSION, folder.name):
            return f"{MANIFEST} is of another version or folder"
        files = content["files"]
        # Some file systems add hidden files of their own.
        present = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {MANIFEST}
        if different := sorted(present ^ set(files)):
            return f"{different[0]} is {'missing' if different[0] in files else 'not part of it'}"
        for name, expected in files.items():
            if not (folder / name).is_file():
                return f"{name} is no file"
            if (folder / name).stat().st_size != expected["size"]:
                return f"{name} has another size than when it was written"
            if checksum(folder / name) != expected["xxh3"]:
                return f"{name} is not what was written"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return f"{MANIFEST} or a file in it cannot be read ({' '.join(str(error).split())})"
    return None


def checksum(path: Path) -> str:
    """Return the 128 bits of xxh3 of the file `path` as hex digits."""
    digest, buffer = xxhash.xxh3_128(), bytearray(CHUNK)
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as file:
        while read := file.readinto(buffer):
            digest.update(view[:read])
    return digest.hexdigest()


def seal(folder: Path, name: str) -> None:
    """Flush all files of `folder` to the disk, and write the manifest last; `name` is what it will be called."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    for file in files:
        sync(file)
    content = {
        "version": MANIFEST_VERSION,
        "name": name,
        "files": {file.name: {"size": file.stat().st_size, "xxh3": checksum(file)} for file in files},
    }
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps(content, indent=1), encoding="utf-8")
    sync(manifest)
    sync(folder)


def sync(path: Path) -> None:
    """Wait until the file or folder `path` is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
