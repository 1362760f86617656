"""Which runs make a condition, what is left out, and what runs can be asked."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lightning_metatok.errors import UserError
from lightning_metatok.report.lengths import question
from lightning_metatok.report.study import of_runs, of_sweep
from tests.report.studies import ablation, answers, sweep
from tests.written_runs import write_run

ONE = {1: answers(x1=0.5), 2: answers(x1=0.6)}


def test_conditions_are_the_axes_that_vary_without_the_seed(tmp_path: Path) -> None:
    values = {("meta", "rotary"): ONE, ("plain", "rotary"): ONE}
    study = sweep(tmp_path, ["arm", "model.position"], values)
    assert study.axes == ("arm",)
    assert [(c.label, len(c.runs), c.axes) for c in study.conditions] == [
        ("meta", 2, {"arm": "meta"}),
        ("plain", 2, {"arm": "plain"}),
    ]
    assert study.base.label == "plain"


def test_unfinished_runs_are_left_out_and_counted(tmp_path: Path) -> None:
    study = sweep(tmp_path, ["arm"], {("meta",): ONE}, states={"waiting": 3, "failed": 1})
    assert study.left_out == {"waiting": 3, "failed": 1}
    assert len(study.runs) == 2


def test_a_sweep_with_nothing_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a sweep: expected at least one finished run, there are 2 waiting, 1 failed"):
        sweep(tmp_path, ["arm"], {}, states={"waiting": 2, "failed": 1})


def test_a_damaged_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"damaged-0: metrics\.jsonl cannot be read; .*sweep retry"):
        sweep(tmp_path, ["arm"], {("meta",): ONE}, states={"damaged": 1})


def test_runs_of_different_tasks_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "other-1", values=[0.5], config={"data.task": "copying"}, last=answers(x1=0.5))
    with pytest.raises(UserError, match=r"other-1: data\.task=copying, but .*meta-1 has parity; expected one task"):
        sweep(tmp_path, ["arm"], {("meta",): ONE, ("other",): {1: answers(x1=0.5)}})


def test_run_folders_are_grouped_by_their_configurations(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / f"{arm}{seed}", arm, seed=seed, values=[0.5])
        for arm in ("plain", "meta")
        for seed in (1, 2)
    ]
    study = of_runs(folders, "runs")
    assert [(c.label, len(c.runs)) for c in study.conditions] == [("plain", 2), ("meta", 2)]


BOTH = {"kept": "ablation/kept_{}x", "dropped": "ablation/dropped_{}x"}


@pytest.mark.parametrize(
    ("last", "metrics", "names", "multiples", "higher"),
    [
        (answers(x1=0.5, x1_5=0.4, x8=0.1), (), {"": "answers/full_{}x"}, (1, 1.5, 8), True),
        (ablation(3, 4) | ablation(3, 4, 4), (), BOTH, (1, 4), False),
        ({"ablation/kept_1x": 3.0}, (), {"kept": "ablation/kept_{}x"}, (1,), False),
        ({"depth": 1.0}, ("nothing", "depth"), {"": "depth"}, (), None),
        ({"depth": 1.0}, (), {"": "loss/val"}, (), False),
    ],
)
def test_what_was_logged_says_what_is_asked(
    tmp_path: Path, last: dict[str, float], metrics: Any, names: Any, multiples: Any, higher: Any
) -> None:
    asked = question(sweep(tmp_path, ["arm"], {("meta",): {1: last}}, metrics=metrics))
    assert (asked.names, asked.multiples, asked.higher_is_better) == (names, multiples, higher)


def test_crossed_seeds_of_weights_and_data_are_runs_of_one_condition(tmp_path: Path) -> None:
    rows, folders = [], []
    for arm in ("meta", "plain"):
        for weights, data in ((1, 1), (1, 2), (2, 1), (2, 2)):
            folder = write_run(tmp_path / f"{arm}-{weights}-{data}", arm, seed=7, values=[0.2, 0.4])
            with (folder / "config.yaml").open("a") as file:
                file.write(f"seed: {{weights: {weights}, data: {data}}}\n")
            row = {"name": folder.name, "state": "done", "seconds": 1.0, "arm": arm, "seed_everything": 7}
            rows.append({**row, "seed.weights": weights, "seed.data": data})
            folders.append(folder)
    axes = ["arm", "seed.weights", "seed.data", "seed_everything"]
    study = of_sweep(pd.DataFrame(rows), folders, axes, "seed_everything", title="crossed")
    assert [(c.label, len(c.runs), len({run.seed for run in c.runs})) for c in study.conditions] == [
        ("meta", 4, 4),
        ("plain", 4, 4),
    ]
    meta, plain = ([run.seed for run in c.runs] for c in study.conditions)
    assert meta == plain, "they pair"
