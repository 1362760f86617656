"""Documents of a Parquet file: one column, a few rows at a time; other columns may be anything.

Read by Arrow and not through `datasets`, which wants equal columns in all files, takes a whole row group at once, and
unpacks without a bound: a dictionary makes a gigabyte of a thousand rows that name the same megabyte.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_metatok.data import local_files
from lightning_metatok.data.json_documents import missing_field
from lightning_metatok.errors import UserError

ROWS = 1024
"""Rows of a large row group read at once, at most; fewer where they are long."""
BATCH_BYTES = 1 << 24
"""Unpacked bytes that the rows read at once have on average, at most."""
SMALL_GROUP = 1 << 26
"""Unpacked bytes: smaller row groups are read whole and stay in the file's own dictionary, which rows point into. In
larger ones Arrow would copy all that it has read of the dictionary with every few rows."""


def parquet_documents(path: Path, field: str) -> Iterator[str]:
    """Yield the text in the column `field`.

    Raises:
        UserError: no Parquet file, no such column, a row without text, damage, or a file that unpacks to far more than
            text does; it names file and row.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            column = _column(file, path, field)
        plain = pyarrow.parquet.ParquetFile(path, buffer_size=local_files.CHUNK)
        pointing = pyarrow.parquet.ParquetFile(path, buffer_size=local_files.CHUNK, read_dictionary=[field])
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a Parquet file ({_shown(error)})") from error
    with plain, pointing:
        size = path.stat().st_size
        most = max(local_files.NO_BOMB, local_files.MOST_EXPANSION * size)
        groups = [plain.metadata.row_group(group) for group in range(plain.num_row_groups)]
        unpacked = [group.column(column).total_uncompressed_size for group in groups]
        bomb = UserError(
            f"{path}: unpacks to more than {local_files.MOST_EXPANSION} times its {size} bytes; expected text"
        )
        if sum(unpacked) > most:
            raise bomb
        read = 0
        for number, (group, n_bytes) in enumerate(zip(groups, unpacked, strict=True)):
            if group.num_rows == 0:
                continue
            small = n_bytes <= SMALL_GROUP
            rows = group.num_rows if small else max(1, min(ROWS, BATCH_BYTES * group.num_rows // n_bytes))
            where = f"{path}, row group {number + 1}"
            for text in _texts(pointing if small else plain, number, rows, field, where):
                read += len(text)
                if read > most:
                    raise bomb
                yield text


def _column(file: Any, path: Path, field: str) -> int:
    """Return the number of the column that holds `field` as text."""
    import pyarrow

    schema = file.schema_arrow
    if field not in schema.names:
        raise UserError(f"{path}: {missing_field(field, dict.fromkeys(schema.names))}")
    kind = schema.field(field).type
    kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if kind not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
        raise UserError(f"{path}: field {field!r} holds {kind}, expected text")
    paths = [file.metadata.schema.column(i).path for i in range(file.metadata.num_columns)]
    return paths.index(field)


def _texts(file: Any, group: int, rows: int, field: str, where: str) -> Iterator[str]:
    import pyarrow

    row = 0
    try:
        for batch in file.iter_batches(rows, row_groups=[group], columns=[field]):
            column = batch.column(0)
            column.validate(full=True)
            for value in column:
                row += 1
                text = value.as_py()
                if text is None:
                    raise UserError(f"{where}, row {row}: field {field!r} holds null, expected text")
                yield text
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: damaged ({_shown(error)}); expected a Parquet file") from error


def _shown(error: Exception) -> str:
    return " ".join(str(error).split())
