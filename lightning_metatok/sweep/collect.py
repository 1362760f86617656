"""One tidy table of all runs: what they differ in, what became of them, and what they logged last."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.sweep.expand import PlannedRun, as_argument
from lightning_metatok.sweep.folder import SweepFolder
from lightning_metatok.sweep.record import DAMAGED, DONE, last_values

if TYPE_CHECKING:
    import pandas as pd

FORMATS = (".csv", ".parquet")


def collect(
    folder: SweepFolder,
    runs: Sequence[PlannedRun],
    finished: Sequence[str],
    metrics: Sequence[str],
    jobs: Mapping[str, str] | None = None,
) -> "pd.DataFrame":
    """Return one row a run: id, name, state, the axes, attempts, seconds, and `metrics` (all of them, if none given).

    Raises:
        UserError: no run logged one of `metrics`.
    """
    import pandas as pd

    rows = []
    logged: dict[str, None] = {}
    for run in runs:
        state = folder.state(run.name, finished, jobs)
        found = last_values(folder.run_folder(run.name)) if state.attempt or state.state == DAMAGED else {}
        what = DAMAGED if found is None and state.state == DONE else state.state
        values = found or {}
        logged |= dict.fromkeys(name for name in values if name != "step")
        axes = {key: _cell(value) for key, value in run.axes.items()}
        head = {"id": run.id, "name": run.name, "state": what, "attempts": state.attempt}
        rows.append({**head, "seconds": round(state.spent_s, 1), **axes, "step": values.get("step"), **values})
    for name in metrics:
        if name not in logged:
            raise UserError(f"collect: {name}: no run logged it{nearest(name, logged)}")
    known = [key for key in rows[0] if key not in logged]
    return pd.DataFrame(rows, columns=[*known, *(metrics or logged)])


def write_table(table: "pd.DataFrame", path: Path) -> None:
    """Write CSV or parquet, by the file's ending; a reader sees the old file or the whole new one.

    Raises:
        UserError: another ending, or a file that cannot be written.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"--out={path}: expected a file that ends in {' or '.join(FORMATS)}")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            _one_type_a_column(table).to_parquet(temporary, index=False)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"--out={path}: cannot be written: {error.strerror or error}") from error


def _one_type_a_column(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the table with text in place of columns that hold what a column of parquet cannot: 3 and "none"."""
    import pyarrow as pa

    made = table.copy()
    for name in table.columns:
        try:
            kind = pa.array(table[name], from_pandas=True).type
        except (pa.ArrowException, OverflowError):
            kind = None
        if kind is None or pa.types.is_nested(kind):
            made[name] = [None if value is None or value != value else as_argument(value) for value in table[name]]
    return made


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value
