"""Tables of README and docs say what classes and files say, and a class that is added is in them without an edit."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs import tables
from lightning_metatok.model import positions
from lightning_metatok.model.positions import RotaryPositions


class Toy(RotaryPositions):
    """Turns pairs the other way | for a test."""

    equation = ""


@pytest.fixture
def copied(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pages and arms, in a folder that may be written to."""
    for name in tables.TABLES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / name, tmp_path / name)
    shutil.copytree(repository / "conf" / "arm", tmp_path / "conf" / "arm")
    shutil.copytree(repository / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "ARMS", tmp_path / "conf" / "arm")
    return tmp_path


def test_every_table_is_as_the_script_writes_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(check=True) == 0
    assert tuple(capsys.readouterr()) == ("", "")


@pytest.mark.slow  # another process
def test_the_script_checks_every_table(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "docs/tables.py", "--check"], cwd=repository, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_added_is_missed_and_then_written(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    n = len(positions.FAMILIES)
    monkeypatch.setitem(positions.FAMILIES, "of_a_test", Toy)
    arm = (
        (copied / "conf" / "arm" / "meta.yaml")
        .read_text()
        .replace(tables.ASKS + "the method", tables.ASKS + "why not?")
    )
    (copied / "conf" / "arm" / "of-a-test.yaml").write_text(arm.replace("{}", "{layers: [1]}"))
    assert tables.main(check=True) == 1
    missed = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in missed] == ["README.md", "docs/positions.md"]
    assert all("`make docs-tables` writes them" in line for line in missed)
    assert tables.main(check=False) == 0
    assert tables.main(check=True) == 0
    readme = (copied / "README.md").read_text()
    assert f"| {n + 1} [positional encodings](docs/positions.md) |" in readme
    assert "| [of-a-test](conf/arm/of-a-test.yaml) |  | `causal` | `meta` | `layers: [1]` | why not? |" in readme
    page = (copied / "docs" / "positions.md").read_text()
    assert (
        r"| `of_a_test` | q, k | turns pairs the other way \| for a test | no | no, but for context extension |" in page
    )


def test_every_arm_and_class_says_what_its_row_shows(repository: Path) -> None:
    for path in (repository / "conf" / "arm").glob("*.yaml"):
        assert path.read_text().startswith(tables.ASKS), path.name
    for table in (tables.encodings(), tables.probes(), tables.of_axis(tables.mechanisms.AXIS.known.own)):
        assert all(row.split("|")[2].strip() for row in table.splitlines()), table
