"""Which line of which file is wrong, for corpora that could not be read.

`datasets` reports a bad file by its own exception, without line and often without file. Once that has
happened, and only then, the files are read a second time here, line by line, until the place is found.
"""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

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
"""Suffixes of corpus files, and the loader of `datasets` that reads them."""


def format_of(path: Path) -> str | None:
    """Return the loader that reads `path`, by its suffix."""
    return next((kind for suffix, kind in FORMATS.items() if path.name.endswith(suffix)), None)


def blame(paths: Sequence[Path], field: str) -> None:
    """Raise a UserError for the first thing wrong in `paths`; return if nothing is.

    Raises:
        UserError: it names the file, the line where the format has lines, and what was expected.
    """
    for path in paths:
        kind = format_of(path)
        try:
            with open_bytes(path) as file:
                if kind == "parquet":
                    check_parquet(path, field)
                elif kind == "json":
                    check_json(path, file, field)
                else:
                    for _ in decoded_lines(path, file):
                        pass
        except (OSError, EOFError, zlib.error) as error:
            hint = "; is it gzipped at all?" if isinstance(error, gzip.BadGzipFile) else ""
            raise UserError(f"{path}: cannot be read ({error}){hint}") from error


def open_bytes(path: Path) -> IO[bytes]:
    """Open `path` for reading, through gzip if its name ends in .gz."""
    return gzip.open(path, "rb") if path.name.endswith(".gz") else open(path, "rb")  # type: ignore[return-value]


def decoded_lines(path: Path, file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text). Raises UserError at the first line that is not UTF-8."""
    offset = 0
    for number, line in enumerate(file, 1):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}, line {number}: byte 0x{line[error.start]:02x} at offset {offset + error.start} "
                f"is not UTF-8; expected text in UTF-8"
            ) from error
        offset += len(line)


def check_json(path: Path, file: IO[bytes], field: str) -> None:
    """Raise UserError unless `file` holds objects with text in `field`, one a line or in one list."""
    lines = decoded_lines(path, file)
    number, line = next(lines, (1, ""))
    if line.lstrip().startswith("["):
        text = line + "".join(rest for _, rest in lines)
        for index, record in enumerate(parsed(text, path, 1)):
            check_record(record, field, f"{path}, item {index + 1}")
        return
    while True:
        if line.strip():
            check_record(parsed(line.rstrip(), path, number), field, f"{path}, line {number}")
        found = next(lines, None)
        if found is None:
            return
        number, line = found


def parsed(text: str, path: Path, first_line: int) -> Any:
    """Return the JSON value in `text`, which starts at line `first_line` of `path`, or raise UserError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise UserError(f"{path}, line {line}: not JSON ({error.msg} at column {error.colno})") from error


def check_record(record: Any, field: str, where: str) -> None:
    """Raise UserError unless `record` is an object whose `field` is a string."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected an object with the field {field!r}, not {type(record).__name__}")
    if field not in record:
        raise UserError(f"{where}: {missing_field(field, record)}")
    if not isinstance(record[field], str):
        raise UserError(f"{where}: field {field!r} holds {type(record[field]).__name__}, expected text")


def check_parquet(path: Path, field: str) -> None:
    """Raise UserError unless `path` is a Parquet file with a column `field`."""
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        names = pyarrow.parquet.read_schema(path).names
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path}: not a Parquet file ({error})") from error
    if field not in names:
        raise UserError(f"{path}: {missing_field(field, dict.fromkeys(names))}")


def missing_field(field: str, record: Mapping[str, Any]) -> str:
    """Return the part of a message that says which fields there are instead of `field`."""
    found = ", ".join(map(repr, record)) or "none"
    return f"no field {field!r} (data.text_field); found {found}{nearest(field, record)}"
