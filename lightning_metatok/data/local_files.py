"""Which local files a corpus is made of, and how they are opened; what would hang or fill the memory is refused.

link in a circle, to nothing    refused, in a folder too: no file is left out in silence
folder linked into itself       each folder is read once
pipe, device                    refused: opening it waits for ever, reading it may never end
gzip bomb                       refused: a megabyte of it becomes a gigabyte
"""

import contextlib
import glob
import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO

from lightning_metatok.errors import UserError, nearest

FORMATS = {
    ".txt": "text",
    ".txt.gz": "text",
    ".py": "text",
    ".json": "json",
    ".json.gz": "json",
    ".jsonl": "json",
    ".jsonl.gz": "json",
    ".parquet": "parquet",
}
"""Suffixes of corpus files, and what they hold."""
NO_BOMB = 1 << 26
"""Bytes: files that unpack to less are none."""
MOST_EXPANSION = 100
"""Unpacked size over packed size. Text is at 3 to 10; DEFLATE ends at 1,032."""
CHUNK = 1 << 20


def format_of(path: Path) -> str | None:
    """Return what `path` holds, by its suffix: text, json or parquet."""
    return next((kind for suffix, kind in FORMATS.items() if path.name.endswith(suffix)), None)


def find_files(name: str, option: str) -> tuple[Path, ...]:
    """Return the files that the path, folder or glob `name` stands for, sorted; `option` is what named it.

    Raises:
        UserError: there are none, a single file has an unknown suffix, or one is no regular file.
    """
    where = f"{option}={name!r}"
    path = Path(name).expanduser()
    if os.path.isdir(path):
        found, expected = _below(path, where), "a folder with files that end"
    elif os.path.lexists(path):
        found, expected = [path], "a file that ends"
    else:
        found, expected = [Path(match) for match in glob.glob(str(path), recursive=True)], "files that end"
        if not found and not glob.has_magic(name):
            names = os.listdir(path.parent) if os.path.isdir(path.parent) else []
            raise UserError(f"{where}: no such file{nearest(path.name, names)}")
    # A glob goes round a folder that is linked into itself some forty times.
    once = {(os.path.realpath(file.parent), file.name): file for file in sorted(found, reverse=True)}
    files = sorted(file for file in once.values() if format_of(file) and not os.path.isdir(file))
    if not files:
        raise UserError(f"{where}: expected {expected} in {', '.join(FORMATS)}")
    for file in files:
        _check_regular(file)
    return tuple(files)


def _below(folder: Path, where: str) -> list[Path]:
    """Every file below `folder`, linked folders included, each folder once."""

    def fail(error: OSError) -> None:
        raise UserError(f"{where}: {error.filename} cannot be read ({error.strerror})") from error

    files, seen = [], {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=fail):
        files += [Path(parent, name) for name in names]
        for child in sorted(folders):
            real = os.path.realpath(os.path.join(parent, child))
            if real in seen:
                folders.remove(child)
            seen.add(real)
    return files


def _check_regular(file: Path) -> None:
    try:
        mode = os.stat(file).st_mode
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); expected a file, or a link to one") from error
    if not stat.S_ISREG(mode):
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
        raise UserError(f"{file}: {kind}; expected a regular file")


def open_bytes(path: Path) -> IO[bytes]:
    """Open `path` for reading, through gzip if its name ends in .gz."""
    return gzip.open(path, "rb") if path.name.endswith(".gz") else open(path, "rb")  # type: ignore[return-value]


@contextlib.contextmanager
def readable(path: Path) -> Iterator[IO[bytes]]:
    """Give the open file; what goes wrong in reading it becomes a UserError that names it."""
    try:
        with open_bytes(path) as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        hint = "; is it gzipped at all?" if "Not a gzipped file" in str(error) and not _is_gzip(path) else ""
        raise UserError(f"{path}: cannot be read ({reason}){hint}") from error


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def check_unpacked_size(path: Path) -> None:
    """Look once a process, as long as `path` does not change, at what it unpacks to.

    Raises:
        UserError: it is a bomb, or cannot be unpacked.
    """
    if path.name.endswith(".gz"):
        status = os.stat(path)
        _unpack(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _unpack(path: Path, size: int, changed_ns: int) -> None:
    unpacked = 0
    with readable(path) as file:
        while chunk := file.read(CHUNK):
            unpacked += len(chunk)
            if unpacked > max(NO_BOMB, MOST_EXPANSION * size):
                raise UserError(f"{path}: unpacks to more than {MOST_EXPANSION} times its {size} bytes; expected text")
