"""Calls of `compare`, for tests."""

import csv
from pathlib import Path

import pytest

from lightning_metatok.cli import main


def compared(tmp_path: Path, *arguments: str | Path) -> dict[tuple[str, str], dict[str, str]]:
    """Run the verb; the rows of its CSV by (table, arm)."""
    path = tmp_path / "out.csv"
    assert main(["compare", *map(str, arguments), "--csv", str(path)]) == 0
    rows = list(csv.DictReader(path.read_text().splitlines()))
    found = {(row["table"], row["arm"]): row for row in rows}
    assert len(found) == len(rows)
    return found


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What `compare` says when it refuses; one line, exit code 2."""
    assert main(["compare", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error
