"""`compare` refuses what it cannot read or must not compare, in one line that names it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_metatok.cli import main
from lightning_metatok.report.runs import conditions, read_run
from tests.cli.comparing import refusal
from tests.written_runs import EXACT, write_run


@pytest.mark.parametrize("missing", ["arm.json", "config.yaml", "metrics.jsonl"])
def test_a_folder_that_is_no_run_says_what_is_missing(
    missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", values=[0.5])
    (run / missing).unlink()
    assert f"{run}: expected a run folder as `fit` writes it; {missing} is missing" in refusal(capsys, run)


def test_no_tokenizer_is_needed_and_one_that_is_known_to_differ_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_run(tmp_path / f"{i}", seed=i, values=[0.5]) for i in range(3)]
    (runs[0] / "tokenizer.json").unlink()
    assert main(["compare", *map(str, runs)]) == 0
    (runs[2] / "tokenizer.json").write_text('{"version": "2.0"}')
    assert f"{runs[2]}: data.tokenizer=" in refusal(capsys, *runs)  # the first has none, the others differ
    for run in runs[1:]:
        (run / "tokenizer.json").unlink()
    assert main(["compare", *map(str, runs)]) == 0
    larger = write_run(tmp_path / "larger", seed=9, values=[0.5], config={"data.vocab_size": 1024})
    expected = f"{larger}: data.vocab_size=1024, but {runs[0]} has null"
    (larger / "tokenizer.json").unlink()
    assert expected in refusal(capsys, *runs, larger)


def test_options_of_an_encoding_and_their_absence_are_two_conditions(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"{i}", seed=i, values=[0.5], config={"model.position_options": options})
        for i, options in enumerate(({}, {}, {"base": 20000}))
    ]
    found = conditions([read_run(run) for run in runs])
    assert [(one.label, len(one.runs)) for one in found] == [
        ("meta, position_options={}", 2),
        ('meta, position_options={"base": 20000}', 1),
    ]


def test_thousands_of_runs_are_grouped_without_looking_at_every_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_run(write_run(tmp_path / "run", values=[0.5]))
    runs = [replace(run, folder=tmp_path / f"{i}", config={**run.config, "seed_everything": i}) for i in range(2000)]
    asked: list[Path] = []
    resolve = Path.resolve
    monkeypatch.setattr(Path, "resolve", lambda path, **options: asked.append(path) or resolve(path, **options))
    (found,) = conditions(runs)
    assert len(found.runs) == 2000
    assert len(asked) == 2000


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("arm.json", "{", "arm.json: expected a JSON object"),
        ("arm.json", '{"arm": "meta"}', "arm.json: expected 'differs' in it"),
        (
            "arm.json",
            '{"arm": "meta", "differs": {"placement": "hint"}, "parameters": 3, "scored_text": 7}',
            "arm.json: scored_text=7: expected a fingerprint in it",
        ),
        ("config.yaml", "- 1", "config.yaml: expected a configuration"),
        ("metrics.jsonl", '{"step": 1}\n{"st', "metrics.jsonl line 2: expected a JSON object"),
        ("metrics.jsonl", '{"step": 10, "accuracy/exact/val": 0.5}\n', "does not say budget/source_tokens at step 10"),
    ],
)
def test_a_broken_file_is_named(
    file: str, text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", values=[0.5])
    (run / file).write_text(text)
    assert expected in refusal(capsys, run)


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", "plain", values=[0.5, 0.6])
    other = write_run(tmp_path / "other", values=[0.5], config={"data.task": "copying"})
    harder = write_run(tmp_path / "harder", values=[0.5], config={"data.task_options": {"n_bits": [2, 16]}})
    again = write_run(tmp_path / "again", "plain", values=[0.5])
    assert "nowhere: no such folder" in refusal(capsys, "nowhere")
    assert "expected run folders" in refusal(capsys)
    assert f"{other}: data.task=copying, but {run} has parity; expected runs on the same data" in refusal(
        capsys, run, other
    )
    assert 'data.task_options={"n_bits": [2, 16]}, but' in refusal(capsys, run, harder)
    assert f"{run}: given twice" in refusal(capsys, run, run)
    assert f"{again}: the same arm and seed as {run}" in refusal(capsys, run, again)
    wrong = refusal(capsys, run, "--metric=accuracy/exat/val")
    assert "--metric=accuracy/exat/val: no run logged it; did you mean 'accuracy/exact/val'?" in wrong
    assert "unknown option '--figur'; did you mean '--figure'?" in refusal(capsys, run, "--figur", "x")
    assert re.search(r"--csv=.*nowhere/out.csv: expected a file in a folder that exists", refusal(
        capsys, run, f"--csv={tmp_path}/nowhere/out.csv"))  # fmt: skip


def test_a_metric_that_one_run_lacks_names_that_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", "plain", values=[0.5])
    other = write_run(tmp_path / "other", values=[0.5], metric="accuracy/token/val")
    assert f"--metric={EXACT}: {other} did not log it; did you mean 'accuracy/token/val'?" in refusal(
        capsys, run, other
    )
