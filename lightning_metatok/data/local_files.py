"""Which local files a corpus is made of, and how they are opened; what would hang or fill the memory is refused.

link in a circle, to nothing    refused, in a folder too: no file is left out in silence
folder linked into itself       each folder is read once
pipe, device                    refused: opening it waits for ever, reading it may never end
bomb in .gz or .zst             refused: a megabyte of it becomes a gigabyte
hidden file or folder           left out, as by `datasets`: notebook checkpoints, .git, what an editor keeps
download that is not finished   refused, where `hf download` says so: a part of a data set is none
other suffix                    left out of a folder or glob, and said in one line
"""

import contextlib
import glob
import gzip
import io
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO

from lightning_metatok.errors import UserError, nearest

FORMATS = {
    ".txt": "text",
    ".md": "text",
    ".py": "text",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
}
"""Suffixes of corpus files, in small or capital letters, and what they hold."""
PACKED = (".gz", ".zst")
"""What may follow the suffix of a file of text or JSON."""
SUFFIXES = f"{', '.join(FORMATS)}; text and JSON also packed as {' or '.join(PACKED)}"
NO_BOMB = 1 << 26
"""Bytes: files that unpack to less are none."""
MOST_EXPANSION = 100
"""Unpacked size over packed size. Text is at 3 to 10; DEFLATE ends at 1,032."""
CHUNK = 1 << 20
DOWNLOADS = Path(".cache", "huggingface", "download")
"""Where `hf download --local-dir` keeps what it has not finished, below the folder that it was given."""


def format_of(path: Path | str) -> str | None:
    """Return what `path` holds, by its suffix: text, json or parquet."""
    name = os.path.basename(path).lower()
    plain = next((name.removesuffix(packed) for packed in PACKED if name.endswith(packed)), name)
    kind = next((kind for suffix, kind in FORMATS.items() if plain.endswith(suffix)), None)
    return None if kind == "parquet" and plain != name else kind


def find_files(name: str, option: str) -> tuple[Path, ...]:
    """Return the files that the path, folder or glob `name` stands for, sorted; `option` is what named it.

    Raises:
        UserError: there are none, a single file has an unknown suffix, or one is no regular file.
    """
    where = f"{option}={name!r}"
    path = Path(name).expanduser()
    if os.path.isdir(path):
        _check_downloaded(path, where)
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
    there = sorted(file for file in once.values() if not os.path.isdir(file))
    files = [file for file in there if format_of(file)]
    if not files:
        raise UserError(f"{where}: expected {expected} in {SUFFIXES}")
    for file in files:
        _check_regular(file)
    return tuple(files)


def left_out(names: Sequence[str]) -> str:
    """Return a line on the files that `find_files` leaves out of the folders and globs `names` by suffix, or ""."""
    kinds: Counter[str] = Counter()
    for name in names:
        path = Path(name).expanduser()
        found = _below(path, name) if os.path.isdir(path) else map(Path, glob.glob(str(path), recursive=True))
        kinds.update(file.suffix or file.name for file in found if not os.path.isdir(file) and format_of(file) is None)
    listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
    more = f" and {len(kinds) - 5} more kinds" if len(kinds) > 5 else ""
    return f"not read, for their suffix: {listed}{more}; read are {SUFFIXES}" if kinds else ""


def shards(paths: Sequence[Path]) -> str:
    """Return a line where files are numbered as parts of more files than there are, such as -00003-of-01024, or ""."""
    there: Counter[tuple[str, int]] = Counter()
    for path in paths:
        if found := re.match(r"(.*)[-.]\d+-of-(\d+)\.", path.name):
            there[str(path.parent / found[1]), int(found[2])] += 1
    missing = [f"{n:,} of {of:,} files of {Path(name).name}" for (name, of), n in there.items() if n < of]
    return f"{', '.join(missing)} are there, and are read" if missing else ""


def _check_downloaded(folder: Path, where: str) -> None:
    """Raise UserError where `hf download --local-dir` has begun files in `folder` that are not whole."""
    whole = folder.absolute()
    for top in (whole, *whole.parents):
        kept = top / DOWNLOADS / whole.relative_to(top)
        if unfinished := list(kept.rglob("*.incomplete")):
            raise UserError(
                f"{where}: its download is not finished ({len(unfinished)} files .incomplete in {kept}); the same "
                "`hf download` goes on with it; without these files, what is there is read"
            )


def _below(folder: Path, where: str) -> list[Path]:
    """Every file below `folder`, linked folders included, each folder once."""

    def fail(error: OSError) -> None:
        raise UserError(f"{where}: {error.filename} cannot be read ({error.strerror})") from error

    files, seen = [], {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=fail):
        files += [Path(parent, name) for name in names if not name.startswith(".")]
        folders[:] = [child for child in folders if not child.startswith(".")]
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


def is_packed(path: Path) -> bool:
    """Return whether `path` is named as a file that must be unpacked."""
    return path.name.lower().endswith(PACKED)


def open_bytes(path: Path) -> IO[bytes]:
    """Open `path` for reading, unpacked if its name ends in .gz or .zst."""
    name = path.name.lower()
    if name.endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if name.endswith(".zst"):
        import pyarrow

        # Unlike most readers of zstd, that of Arrow notices where a file breaks off.
        return io.BufferedReader(pyarrow.input_stream(str(path), compression="zstd"), CHUNK)
    return open(path, "rb")


@contextlib.contextmanager
def readable(path: Path) -> Iterator[IO[bytes]]:
    """Give the open file; what goes wrong in reading it becomes a UserError that names it."""
    try:
        with open_bytes(path) as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        wanted = "gzipped" if path.name.lower().endswith(".gz") else "packed by zstd"
        hint = f"; is it {wanted} at all?" if is_packed(path) and not _is_packed_as(path, wanted) else ""
        raise UserError(f"{path}: cannot be read ({reason}){hint}") from error


def _is_packed_as(path: Path, kind: str) -> bool:
    magic = {"gzipped": b"\x1f\x8b", "packed by zstd": b"\x28\xb5\x2f\xfd"}[kind]
    try:
        with open(path, "rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return True


def check_unpacked_size(path: Path) -> None:
    """Look once a process, as long as `path` does not change, at what it unpacks to.

    Raises:
        UserError: it is a bomb, or cannot be unpacked.
    """
    if is_packed(path):
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
