"""`compare` reads runs off at equal budgets: arithmetic on written run folders, and what `fit` itself writes."""

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lightning_metatok.cli import main
from lightning_metatok.cli.compare import choose_metric
from lightning_metatok.report.budgets import band, estimate
from lightning_metatok.report.runs import conditions, read_run
from tests.written_runs import EXACT, write_run


def compared(tmp_path: Path, *arguments: str | Path) -> dict[tuple[str, str], dict[str, str]]:
    """Run the verb; the rows of its CSV by (table, arm)."""
    path = tmp_path / "out.csv"
    assert main(["compare", *map(str, arguments), "--csv", str(path)]) == 0
    rows = list(csv.DictReader(path.read_text().splitlines()))
    found = {(row["table"], row["arm"]): row for row in rows}
    assert len(found) == len(rows)
    return found


# -- arithmetic


def test_every_run_is_read_where_the_shortest_ends_between_its_logged_points(tmp_path: Path) -> None:
    short = write_run(tmp_path / "short", "plain", values=[0.3, 0.4], tokens_a_step=75)  # ends at 1,500
    long = write_run(tmp_path / "long", "meta", values=[0.2, 0.6, 0.9], tokens_a_step=100)  # 1,000 2,000 3,000
    rows = compared(tmp_path, short, long)
    assert float(rows["source_tokens", "plain"]["at"]) == 1500
    assert float(rows["source_tokens", "plain"]["mean"]) == pytest.approx(0.4)
    assert float(rows["source_tokens", "meta"]["mean"]) == pytest.approx(0.4)  # half way from 0.2 to 0.6
    assert float(rows["source_tokens", "meta"]["read_at"]) == pytest.approx(0.5)


def test_an_arm_that_costs_more_is_read_earlier_at_equal_flops(tmp_path: Path) -> None:
    cheap = write_run(tmp_path / "cheap", "plain", values=[0.3, 0.5])
    dear = write_run(tmp_path / "dear", "meta", values=[0.2, 0.8], flops_a_token=16.0)
    rows = compared(tmp_path, cheap, dear)
    assert float(rows["source_tokens", "meta"]["mean"]) == pytest.approx(0.8)
    assert float(rows["flops", "meta"]["at"]) == 20_000
    # 20,000 FLOPs are 1,250 of its tokens: a quarter of the way from 0.2 to 0.8.
    assert float(rows["flops", "meta"]["mean"]) == pytest.approx(0.35)
    assert float(rows["flops", "plain"]["mean"]) == pytest.approx(0.5)


def test_seeds_of_an_arm_are_one_row_with_students_interval(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"{i}", seed=i, values=[0.1, value]) for i, value in enumerate((0.5, 0.6, 0.7))]
    row = compared(tmp_path, *runs)["source_tokens", "meta"]
    assert (row["seeds"], row["interval"]) == ("3", "t")
    half = 4.302652729911275 * 0.1 / math.sqrt(3)  # t(0.975, 2 degrees of freedom), standard deviation 0.1
    assert [float(row[key]) for key in ("mean", "low", "high")] == pytest.approx([0.6, 0.6 - half, 0.6 + half])


def test_one_seed_of_an_accuracy_has_wilsons_interval_over_its_prompts(tmp_path: Path) -> None:
    row = compared(tmp_path, write_run(tmp_path / "run", values=[81 / 263]))["source_tokens", "meta"]
    assert (row["seeds"], row["interval"]) == ("1", "wilson")
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I.
    assert [float(row["low"]), float(row["high"])] == pytest.approx([0.2553, 0.3662], abs=5e-5)


def test_one_seed_of_a_loss_has_no_interval(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", values=[0.5])
    row = compared(tmp_path, run, "--metric=loss/val")["source_tokens", "meta"]
    assert (row["low"], row["high"], row["interval"], row["verdict"]) == ("", "", "", "")


def test_an_interval_over_seeds_of_an_accuracy_stays_between_0_and_1() -> None:
    assert (estimate([0.9, 1.0], share=True).high, estimate([0.0, 0.1], share=True).low) == (1.0, 0.0)
    assert estimate([0.9, 1.0]).high > 1.0


def test_seeds_without_spread_do_not_look_certain() -> None:
    assert estimate([0.25, 0.25]).interval == ""
    assert estimate([1.0, 1.0], share=True).interval == ""
    found = estimate([1.0, 1.0], share=True, n_items=100)
    assert (found.n_seeds, found.interval, found.high) == (2, "wilson", 1.0)
    assert found.low == pytest.approx(0.9630, abs=5e-5)  # Wilson for 100 of 100


def test_intervals_over_seeds_hold_the_true_mean_as_often_as_they_say() -> None:
    generator = np.random.default_rng(7)
    found = [estimate(generator.normal(3.0, 2.0, size=3)) for _ in range(2000)]
    covered = np.mean([one.low <= 3.0 <= one.high for one in found])
    assert 0.935 < covered < 0.965  # 0.95 and three standard errors of 2,000 draws


def test_a_resumed_run_counts_a_step_as_it_was_logged_last(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", values=[0.1, 0.9])
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 20, EXACT: 0.5}) + "\n")
    assert float(compared(tmp_path, run)["source_tokens", "meta"]["mean"]) == 0.5


# -- who is compared with whom


def test_only_arms_with_equally_many_parameters_are_compared_at_equal_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = write_run(tmp_path / "plain", "plain", values=[0.3, 0.4], parameters=800)
    pause = write_run(tmp_path / "pause", "pause", values=[0.3, 0.5], parameters=800)
    meta = write_run(tmp_path / "meta", "meta", values=[0.3, 0.6], parameters=1234)
    rows = compared(tmp_path, plain, pause, meta)
    assert [key for key in rows if key[0] == "parameters"] == [("parameters", "plain"), ("parameters", "pause")]
    assert "no partner with as many parameters: meta (1,234)" in capsys.readouterr().out


def test_other_settings_make_other_rows_and_are_named(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", "plain", values=[0.3]),
        write_run(tmp_path / "b", "plain", values=[0.4], config={"model.d_ff": 640}, parameters=1500),
        write_run(tmp_path / "c", "meta", values=[0.5], parameters=1500),
        write_run(tmp_path / "d", "meta", values=[0.7], parameters=1500, seed=2, config={"data.num_workers": 4}),
    ]
    rows = compared(tmp_path, *runs)
    by_tokens = [arm for table, arm in rows if table == "source_tokens"]
    assert by_tokens == ["plain, d_ff=null", "plain, d_ff=640", "meta, d_ff=null"]
    assert [arm for table, arm in rows if table == "parameters"] == ["plain, d_ff=640", "meta, d_ff=null"]
    assert rows["source_tokens", "meta, d_ff=null"]["seeds"] == "2"  # workers are no difference


@pytest.mark.parametrize(
    ("plain", "expected"),
    [(0.1, "the plain arm is at 0.100"), (0.97, "the plain arm is at 0.970"), (0.2, ""), (0.5, "")],
)
def test_a_plain_arm_at_the_floor_or_the_ceiling_decides_nothing(
    plain: float, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_run(tmp_path / "a", "plain", values=[plain]), write_run(tmp_path / "b", "meta", values=[0.9])]
    rows = compared(tmp_path, *runs)
    assert {bool(row["verdict"]) for row in rows.values()} == {bool(expected)}
    text = capsys.readouterr().out
    assert expected in text
    assert ("0.900*" in text) == bool(expected)


def test_without_a_plain_arm_nobody_knows_whether_it_is_informative(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = compared(tmp_path, write_run(tmp_path / "run", values=[0.5]))["source_tokens", "meta"]
    assert row["verdict"] == ""
    assert "no plain arm among these runs" in capsys.readouterr().out


# -- output


def test_the_tables_fit_a_terminal_of_100_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    runs = [
        write_run(tmp_path / f"{arm}{seed}", arm, seed=seed, values=[0.3, 0.5 + seed / 10], parameters=124_337_664)
        for arm in ("plain", "meta") for seed in (1, 2)
    ]  # fmt: skip
    compared(tmp_path, *runs)
    text = capsys.readouterr().out
    assert max(len(line) for line in text.splitlines()) <= 100
    assert text.count("│ 0.650 │ [0.015, 1.000] │") == 6  # two arms, three tables
    for title in ("at equal source tokens: 2,000", "at equal training FLOPs: 2e+04", "at equal parameters"):
        assert title in text


def test_the_figure_is_a_png_and_its_band_spans_the_seeds(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"{seed}", seed=seed, values=values) for seed, values in
            ((1, [0.2, 0.6, 0.8]), (2, [0.4, 0.4]))]  # fmt: skip
    assert main(["compare", *map(str, runs), "--figure", str(tmp_path / "arms.png")]) == 0
    assert (tmp_path / "arms.png").read_bytes().startswith(b"\x89PNG")
    (condition,) = conditions([read_run(run) for run in runs])
    spent, mean, low, high = band(condition, EXACT, "source_tokens")
    assert spent.tolist() == [1000, 2000]  # what both have
    assert mean.tolist() == pytest.approx([0.3, 0.5])
    assert (low.tolist(), high.tolist()) == ([0.2, 0.4], [0.4, 0.6])


def test_the_default_metric_is_the_loss_where_no_run_answers(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", values=[3.0], metric="bits_per_byte/val"))
    assert choose_metric([run], None) == "loss/val"
    assert choose_metric([read_run(write_run(tmp_path / "task", values=[0.5]))], None) == EXACT


# -- runs that were trained


def train(folder: Path, placement: str, mechanism: str, seed: int) -> Path:
    """Train four steps on a tiny task with the callback and the loggers of `fit`, and write the rest of its folder."""
    import lightning

    from lightning_metatok.lit import MetaTokenLM, TaskDataModule
    from lightning_metatok.lit.callbacks.arm_card import ArmCard
    from lightning_metatok.lit.run.loggers import run_loggers
    from lightning_metatok.tasks import symbol_tokenizer

    config: dict[str, Any] = {
        "seed_everything": seed,
        "model": {
            "n_layers": 1,
            "n_heads": 2,
            "d_model": 16,
            "vocab_size": symbol_tokenizer().vocab_size,
            "mechanism": mechanism,
        },
        "data": {"task": "list_recall", "task_options": {"n_lists": [2, 3]}, "meta_placement": placement}
        | {"train_examples": None, "validation_examples": 20, "batch_size": 4, "seed": seed}
        | {"cache_dir": str(folder.parent / "cache")},
    }
    lightning.seed_everything(seed, verbose=False)
    data, model = TaskDataModule(**config["data"]), MetaTokenLM(**config["model"])
    trainer = lightning.Trainer(
        **{"accelerator": "cpu", "max_steps": 4, "val_check_interval": 2, "log_every_n_steps": 2, "logger": False},
        **{key: False for key in ("enable_checkpointing", "enable_progress_bar", "enable_model_summary")},
        use_distributed_sampler=False,
        callbacks=[ArmCard()],
        default_root_dir=folder,
    )
    trainer.loggers = run_loggers(folder)
    trainer.fit(model, datamodule=data)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    data.tokenizer.save(folder / "tokenizer.json")
    return folder


@pytest.mark.filterwarnings("ignore")  # Lightning's advice about toy runs
def test_trained_runs_are_read_as_they_were_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arms = {"plain": ("none", "none"), "pause": ("hint", "none"), "meta": ("hint", "meta")}
    runs = [train(tmp_path / f"{arm}{seed}", *how, seed) for arm, how in arms.items() for seed in (1, 2)]
    rows = compared(tmp_path, *runs)
    assert [arm for table, arm in rows if table == "source_tokens"] == list(arms)
    assert {row["seeds"] for row in rows.values()} == {"2"}
    assert {row["metric"] for row in rows.values()} == {EXACT}
    assert [arm for table, arm in rows if table == "parameters"] == ["plain", "pause"]
    # The same seeds read the same source tokens, whatever marks stand between them.
    tokens, flops = ({arm: float(rows[table, arm]["read_at"]) for arm in arms} for table in ("source_tokens", "flops"))
    assert tokens["plain"] == tokens["pause"] == tokens["meta"]
    # At equal FLOPs an arm that costs more is read earlier.
    assert flops["plain"] > flops["pause"] > flops["meta"]
    lines = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    at_the_end = {key: value for line in lines if line["step"] == 4 for key, value in line.items()}
    spent, values = read_run(runs[0]).curve(EXACT, "source_tokens")
    assert (values[-1], spent[-1]) == (at_the_end[EXACT], at_the_end["budget/source_tokens"])


# -- mistakes


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What `compare` says when it refuses; one line, exit code 2."""
    assert main(["compare", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


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
    late = write_run(tmp_path / "late", values=[0.5], tokens_a_step=500)
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
    assert f"{late} logged it first at 5000 source tokens, where {again} had ended (1000)" in refusal(
        capsys, again, late
    )
    assert "unknown option '--figur'; did you mean '--figure'?" in refusal(capsys, run, "--figur", "x")
    assert re.search(r"--csv=.*nowhere/out.csv: expected a file in a folder that exists", refusal(
        capsys, run, f"--csv={tmp_path}/nowhere/out.csv"))  # fmt: skip


def test_a_metric_that_one_run_lacks_names_that_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", "plain", values=[0.5])
    other = write_run(tmp_path / "other", values=[0.5], metric="accuracy/token/val")
    assert f"--metric={EXACT}: {other} did not log it; did you mean 'accuracy/token/val'?" in refusal(
        capsys, run, other
    )
