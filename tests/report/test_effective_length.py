"""The report's table of lengths says how long a context each condition still reads well."""

from pathlib import Path

from lightning_metatok.report.contrasts import means
from lightning_metatok.report.lengths import question
from lightning_metatok.report.sections import values_table
from tests.report.studies import ablation, answers, sweep


def column(path: Path, values: dict[tuple[str, ...], dict[int, dict[str, float]]]) -> dict[str, str] | None:
    study = sweep(path, ["arm"], values)
    asked = question(study)
    table = values_table(study, asked, means(study, asked))
    if "effective length" not in table.header:
        return None
    place = table.header.index("effective length")
    assert all(len(row) == len(table.header) for row in table.rows)
    return {row[0]: row[place] for row in table.rows}


def test_losses_and_answers_have_the_column(tmp_path: Path) -> None:
    losses = {
        ("plain",): {1: ablation(3.0, 3.0) | ablation(3.1, 3.1, at=2) | ablation(3.9, 3.9, at=4)},
        ("meta",): {1: ablation(3.0, 3.0) | ablation(3.1, 3.1, at=2) | ablation(3.16, 3.16, at=4)},
    }
    assert column(tmp_path / "text", losses) == {"plain": "2×", "meta": "4×+"}
    shares = {("plain",): {1: answers(x1=0.8, x2=0.5)}, ("meta",): {1: answers(x1=0.0, x2=0.0)}}
    assert column(tmp_path / "task", shares) == {"plain": "1×", "meta": "–"}


def test_one_length_has_none(tmp_path: Path) -> None:
    assert column(tmp_path, {("plain",): {1: ablation(3.0, 3.0)}, ("meta",): {1: ablation(3.0, 3.0)}}) is None
