"""Where stdout is no terminal, no table is cut or folded, whatever the environment says of columns."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.table import Table

import lightning_metatok
from lightning_metatok import doctor
from lightning_metatok.cli import main
from lightning_metatok.cli.probe import print_findings
from lightning_metatok.console import printer
from lightning_metatok.lit.ablations.figures import readings_table
from lightning_metatok.lit.ablations.readings import Dropped, Kept, ReadingLoss
from tests.written_runs import write_run

LONG = "a_name_that_is_longer_than_a_line_" * 8


@pytest.fixture(autouse=True, params=[{}, {"COLUMNS": "40"}, {"FORCE_COLOR": "1", "COLUMNS": "40"}], ids=str)
def environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of these made rich cut a table that went into a pipe."""
    for key, value in request.param.items():
        monkeypatch.setenv(key, value)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_table_is_as_wide_as_it_needs_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("a", "b", title=f"title {LONG} {LONG}", title_justify="left", caption=f"caption {LONG} {LONG}")
    table.add_row(LONG, "x")
    printer().print(table)
    printer().print(f"{LONG} {LONG}", highlight=False)
    text = plain(capsys.readouterr().out)
    (row,) = [line for line in text.splitlines() if line.startswith("│")]
    assert [cell.strip() for cell in row.strip("│").split("│")] == [LONG, "x"]
    assert text.splitlines()[0] == f"title {LONG} {LONG}"
    assert text.splitlines()[-2] == f"caption {LONG} {LONG}"
    assert table.title is not None
    assert text.splitlines()[-1] == f"{LONG} {LONG}"
    assert max(map(len, text.splitlines())) < 4 * len(LONG)  # and no wider


def test_a_terminal_has_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert printer().width == 40


def test_compare_cuts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        write_run(tmp_path / f"{arm}{seed}", arm, seed=seed, values=[0.3, 0.5 + seed / 10], parameters=124_337_664)
        for arm in ("plain", "meta")
        for seed in (1, 2)
    ]
    other = write_run(tmp_path / "other", seed=3, values=[0.3, 0.6], config={"model.d_ff": LONG})
    assert main(["compare", *map(str, runs), str(other)]) == 0
    text = plain(capsys.readouterr().out)
    assert text.count(f"d_ff={LONG}") >= 3
    whole = r"│ 124,337,664 │ +2 │ +0\.650 │ +0\.600, 0\.700 │ +0 of 2 │ +(2,000|2e\+04) │"
    assert len(re.findall(whole, text)) == 6  # two arms, three tables


def test_a_probe_and_the_doctor_cut_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    print_findings([("cosine", SimpleNamespace(name="cosine", says=LONG))], tmp_path / LONG)  # type: ignore[list-item]
    doctor.show({"versions": {"torch": LONG}})
    text = plain(capsys.readouterr().out)
    assert text.count(LONG) == 3
    assert "cosine" in text


def test_the_ablation_table_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    losses = [
        ReadingLoss(length=2048, multiple=2, reading=kept, nats=1.23456, bits_per_byte=0.98765)
        for kept in ("kept", "dropped")
    ]
    printer().print(readings_table([Kept(), Dropped()], losses))
    assert plain(capsys.readouterr().out).count("1.2346 (0.9877)") == 2


def test_every_table_goes_through_one_printer() -> None:
    """What rich prints to stdout by itself has 80 columns in a pipe."""
    package, found = Path(lightning_metatok.__file__).parent, []
    for file in package.rglob("*.py"):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(r"\bConsole\((?!stderr=True|width=)|\brich\.print\(|print as ", line):
                found.append(f"{file.relative_to(package)}:{number}")
    assert [place.partition(":")[0] for place in found] == ["console.py"]
