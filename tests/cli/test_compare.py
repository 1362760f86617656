"""`compare` reads runs at their ends: arithmetic on written run folders, and what `fit` itself writes."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_metatok.cli import main
from lightning_metatok.cli.compare import choose_metric
from lightning_metatok.report.budgets import band
from lightning_metatok.report.runs import conditions, read_run
from tests.cli.comparing import compared, refusal
from tests.written_runs import EXACT, write_run

# -- arithmetic


def test_every_run_counts_at_its_own_end_and_is_compared_at_equal_budgets_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = write_run(tmp_path / "short", "plain", values=[0.3, 0.4], tokens_a_step=75)  # ends at 1,500
    near = write_run(tmp_path / "near", "pause", values=[0.3, 0.5], tokens_a_step=75.7)  # 0.9 % later
    long = write_run(tmp_path / "long", "meta", values=[0.2, 0.6, 0.9], tokens_a_step=100)  # 1,000 2,000 3,000
    rows = compared(tmp_path, short, near, long)
    found = {arm: rows["source_tokens", arm] for arm in ("plain", "pause", "meta")}
    assert [float(row["mean"]) for row in found.values()] == [0.4, 0.5, 0.9]
    assert [float(row["ended_at_most"]) for row in found.values()] == [1500, 1514, 3000]
    assert [row["against"] for row in found.values()] == ["", "plain", ""]
    assert float(found["pause"]["difference_mean"]) == pytest.approx(0.1)
    assert found["meta"]["difference_mean"] == ""
    text = capsys.readouterr().out
    assert "meta ended at 3,000 source tokens, plain ended at 1,500: not compared" in text
    assert "meta ended at 3e+04 training FLOPs, plain ended at 1.5e+04: not compared" in text


def test_an_arm_that_costs_more_is_not_compared_at_equal_flops(tmp_path: Path) -> None:
    cheap = write_run(tmp_path / "cheap", "plain", values=[0.3, 0.5])
    dear = write_run(tmp_path / "dear", "meta", values=[0.2, 0.8], flops_a_token=16.0)
    steps = write_run(tmp_path / "steps", "pause", values=[0.3, 0.4], tokens_a_step=160)  # FLOPs of the second
    rows = compared(tmp_path, cheap, dear, steps)
    assert [float(rows["flops", arm]["mean"]) for arm in ("plain", "meta", "pause")] == [0.5, 0.8, 0.4]
    assert [float(rows["flops", arm]["ended_at_most"]) for arm in ("plain", "meta", "pause")] == [2e4, 3.2e4, 3.2e4]
    assert [rows[table, "meta"]["against"] for table in ("source_tokens", "flops")] == ["plain", ""]


def test_a_schedule_that_had_not_ended_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    optimizer = {"model.optimizer": {"decay_steps": 50, "lr": 1e-3, "min_lr": 1e-4}}
    runs = [
        write_run(tmp_path / "a", "plain", values=[0.3] * 5, config=optimizer),
        write_run(tmp_path / "b", "meta", values=[0.3] * 3, config=optimizer),
    ]
    compared(tmp_path, *runs)
    assert "the learning-rate schedule had not ended: meta (step 30 of 50)" in capsys.readouterr().out


def arms(tmp_path: Path, n: int, spread: float = 0.01, **options: Any) -> list[Path]:
    """Runs of plain and meta; meta is better by 0.1, 0.1 + `spread`, ... with the seed."""
    return [
        write_run(tmp_path / f"{arm}{seed}", arm, seed=seed, values=[0.1, value], **options)
        for seed in range(n)
        for arm, value in (("plain", 0.3 + seed / 20), ("meta", 0.4 + seed / 20 + seed * spread))
    ]


def test_accuracies_of_five_seeds_are_compared_by_sign_flips_with_the_power_that_they_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = compared(tmp_path, *arms(tmp_path, 5))["source_tokens", "meta"]
    assert (row["seeds"], row["interval"], row["difference_by"]) == ("5", "", "sign flips")
    assert [float(row[f"difference_{key}"]) for key in ("mean", "low", "high")] == pytest.approx([0.12, 0.1, 0.14])
    assert (float(row["p"]), row["difference"]) == (pytest.approx(1 / 32), "told apart")
    # t(0.975, 4) and a power of 0.8: 1.6848 standard deviations (G*Power 3.1.9: n = 5 at d = 1.68), here 0.0158.
    assert float(row["difference_detectable"]) == pytest.approx(1.68 * math.sqrt(0.00025), rel=0.01)
    text = capsys.readouterr().out
    assert "found in 80%: the smallest true difference that as many seeds with this spread would have found" in text
    assert text.count("1,000 parameters, 2,000 source tokens, 5 seeds each") == 4


def test_losses_have_students_interval(tmp_path: Path) -> None:
    row = compared(tmp_path, *arms(tmp_path, 5, metric="loss/val"), "--metric=loss/val")["source_tokens", "meta"]
    assert (row["interval"], row["difference_by"]) == ("t", "paired t")
    half = 2.7764451051977987 * math.sqrt(0.00025 / 5)  # t(0.975, 4 degrees of freedom)
    assert [float(row[f"difference_{key}"]) for key in ("low", "high")] == pytest.approx([0.12 - half, 0.12 + half])


@pytest.mark.parametrize("n", [2, 3, 4])
def test_fewer_than_five_seeds_have_no_interval_and_no_p(
    n: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = compared(tmp_path, *arms(tmp_path, n))["source_tokens", "meta"]
    assert [row[key] for key in ("low", "high", "difference_low", "p", "difference_by", "difference_detectable")] == (
        [""] * 6
    )
    assert row["difference"] == f"{n} runs, no interval"
    assert f"{n} runs, no interval" in capsys.readouterr().out


def test_text_that_is_not_known_to_be_the_same_pairs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = {"data.task": None}
    old = arms(tmp_path / "old", 5, metric="loss/val", config=text)
    row = compared(tmp_path, *old, "--metric=loss/val")["source_tokens", "meta"]
    assert row["difference_by"] == "Welch"
    assert capsys.readouterr().out.count("text not known to be the same: nothing is paired") == 3  # one a table
    new = arms(tmp_path / "new", 5, metric="loss/val", config=text, scored="abc")
    assert compared(tmp_path, *new, "--metric=loss/val")["source_tokens", "meta"]["difference_by"] == "paired t"
    other = write_run(tmp_path / "other", "pause", values=[3.0], metric="loss/val", config=text, scored="def")
    assert "other: scored on text def of 48,960 targets, but" in refusal(capsys, *new, other)


def test_runs_that_solve_or_not_are_compared_by_their_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = []
    for seed in range(6):
        late = [0.1, 0.2, 0.3, 0.5, 0.7, 0.95 if seed % 2 else 0.7]
        runs.append(write_run(tmp_path / f"plain{seed}", "plain", seed=seed, values=late))
        runs.append(write_run(tmp_path / f"meta{seed}", "meta", seed=seed, values=[0.2, 0.92, 0.93, 0.95, 0.97, 0.99]))
    row = compared(tmp_path, *runs, "--figure", tmp_path / "arms.png")["source_tokens", "plain"]
    assert (row["solved"], float(row["solved_low"])) == ("3", pytest.approx(0.1876, abs=1e-4))  # Wilson, 3 of 6 runs
    lines = [line.replace(" ", "") for line in capsys.readouterr().out.splitlines()]
    assert "│plain│3of6│60│–│–│" in lines
    (meta,) = (line for line in lines if line.startswith("│meta│6of6│20│plain│"))
    # All six of one arm are solved at step 20, where none of the other is: 12 at risk, 6 of them of one arm.
    # (observed - expected)² / variance = (6 - 3)² / (12/2 * 12/2 * 6 * 6 / (144 * 11)) with no later step of both.
    chi_squared = 3**2 / (6 * 6 * 6 * 6 / (12 * 12 * 11))
    assert float(meta.split("│")[5]) == pytest.approx(math.erfc(math.sqrt(chi_squared / 2)), abs=5e-4)
    assert main(["compare", *map(str, runs), "--solved=0.98"]) == 0
    assert "steps to 0.98 of accuracy/exact/val" in capsys.readouterr().out
    assert "--solved=0: expected a share of exact answers" in refusal(capsys, *runs, "--solved=0")


def test_one_seed_of_an_accuracy_has_wilsons_interval_over_its_prompts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = compared(tmp_path, write_run(tmp_path / "run", values=[81 / 263]))["source_tokens", "meta"]
    assert (row["seeds"], row["interval"]) == ("1", "wilson")
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I.
    assert [float(row["low"]), float(row["high"])] == pytest.approx([0.2553, 0.3662], abs=5e-5)
    assert "1 run's [0.255, 0.366]" in capsys.readouterr().out


def test_one_seed_of_a_loss_has_no_interval(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", values=[0.5])
    row = compared(tmp_path, run, "--metric=loss/val")["source_tokens", "meta"]
    assert (row["low"], row["high"], row["interval"], row["verdict"]) == ("", "", "", "")


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
        for arm in ("plain", "meta") for seed in (1, 2, 3, 4, 5)
    ]  # fmt: skip
    compared(tmp_path, *runs)
    text = capsys.readouterr().out
    tables = [line for line in text.splitlines() if line[:1] in "│┃┏┡├└"]
    assert max(map(len, tables)) <= 100
    assert text.count("│ 0.800 │      0.600, 1.000 │ 2 of 5 [0.12, 0.77] │") == 6  # two arms, three tables
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
    # The same seeds read the same source tokens, whatever marks stand between them; marks cost FLOPs.
    tokens, flops = (
        {arm: float(rows[table, arm]["ended_at_most"]) for arm in arms} for table in ("source_tokens", "flops")
    )
    assert tokens["plain"] == tokens["pause"] == tokens["meta"]
    assert flops["plain"] < flops["pause"] < flops["meta"]
    lines = [json.loads(line) for line in (runs[0] / "metrics.jsonl").read_text().splitlines()]
    at_the_end = {key: value for line in lines if line["step"] == 4 for key, value in line.items()}
    spent, values = read_run(runs[0]).curve(EXACT, "source_tokens")
    assert (values[-1], spent[-1]) == (at_the_end[EXACT], at_the_end["budget/source_tokens"])


def test_any_arm_can_be_the_one_that_others_are_measured_against(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each seed has its own level: what pause and meta of one seed share must cancel out."""
    runs = [
        write_run(tmp_path / f"{arm}-{seed}", arm, seed=seed, values=[0.1 * seed + gain], scored="one text")
        for arm, gain in (("plain", 0.0), ("pause", 0.1), ("meta", 0.15 + 0.001))
        for seed in range(1, 7)
    ]
    rows = compared(tmp_path, *runs, "--against", "pause")
    found = {arm: rows["source_tokens", arm] for arm in ("plain", "pause", "meta")}
    assert [row["against"] for row in found.values()] == ["pause", "", "pause"]
    assert [float(found[arm]["difference_mean"]) for arm in ("plain", "meta")] == pytest.approx([-0.1, 0.051])
    assert "meta - pause" in (said := capsys.readouterr().out)
    assert "meta - plain" not in said
    assert compared(tmp_path, *runs)["source_tokens", "meta"]["against"] == "plain"
    assert "--against=puase: expected an arm of these runs; did you mean 'pause'?" in refusal(
        capsys, *runs, "--against=puase"
    )
