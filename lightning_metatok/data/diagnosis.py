"""What is wrong with which text or Parquet file of a corpus that could not be read.

`datasets` reports a bad file by its own exception, without line and often without file. Once that has
happened, and only then, the files are read a second time here, until the place is found.
"""

from collections.abc import Sequence
from pathlib import Path

from lightning_metatok.data.json_documents import decoded_lines, missing_field
from lightning_metatok.data.local_files import format_of, readable
from lightning_metatok.errors import UserError


def blame(paths: Sequence[Path], field: str) -> None:
    """Raise a UserError for the first thing wrong in `paths`; return if nothing is.

    Raises:
        UserError: it names the file, the line where the format has lines, and what was expected.
    """
    for path in paths:
        with readable(path) as file:
            if format_of(path) == "parquet":
                check_parquet(path, field)
            else:
                for _ in decoded_lines(path, file):
                    pass


def check_parquet(path: Path, field: str) -> None:
    """Raise UserError unless `path` is a Parquet file whose column `field` holds text in every row."""
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a Parquet file ({_shown(error)})") from error
    with file:
        schema = file.schema_arrow
        if field not in schema.names:
            raise UserError(f"{path}: {missing_field(field, dict.fromkeys(schema.names))}")
        kind = schema.field(field).type
        if kind not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
            raise UserError(f"{path}: field {field!r} holds {kind}, expected text")
        for group in range(file.num_row_groups):
            where = f"{path}, row group {group + 1}"
            try:
                column = file.read_row_group(group, columns=[field])[field]
                column.validate(full=True)
            except (pyarrow.ArrowException, OSError) as error:
                raise UserError(f"{where}: damaged ({_shown(error)}); expected a Parquet file") from error
            if column.null_count:
                row = column.is_null().index(True).as_py() + 1
                raise UserError(f"{where}, row {row}: field {field!r} holds null, expected text")


def _shown(error: Exception) -> str:
    return " ".join(str(error).split())
