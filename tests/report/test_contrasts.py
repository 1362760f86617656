"""Who is compared with whom, paired or not, and how p is corrected."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lightning_metatok.errors import UserError
from lightning_metatok.report.contrasts import arms, pairs, readings
from lightning_metatok.report.lengths import question
from lightning_metatok.report.markdown import markdown
from lightning_metatok.report.page import Table
from lightning_metatok.report.sections import report
from lightning_metatok.report.study import of_runs, of_sweep
from tests.report.studies import ablation, answers, sweep
from tests.written_runs import write_run

WAYS = ["kept", "turned", "shuffled"]


def test_with_one_axis_all_are_compared_with_the_plain_arm(tmp_path: Path) -> None:
    one = {1: answers(x1=0.5), 2: answers(x1=0.6)}
    study = sweep(tmp_path, ["arm"], {("meta",): one, ("plain",): one, ("pause",): one})
    assert [(a.label, b.label) for a, b in pairs(study, question(study))] == [("meta", "plain"), ("pause", "plain")]


def test_with_two_axes_arms_are_compared_within_the_other(tmp_path: Path) -> None:
    values = {
        (arm, position): {seed: ablation(3 + 0.1 * seed, 4 + 0.1 * seed) for seed in (1, 2)}
        for arm in ("kept", "dropped")
        for position in ("rotary", "alibi", "fire")
    }
    study = sweep(tmp_path, ["arm", "model.position"], values)
    found = [(a.label, b.label) for a, b in pairs(study, question(study))]
    assert found == [(f"dropped, {name}", f"kept, {name}") for name in ("rotary", "alibi", "fire")]


def test_the_mean_of_all_is_taken_seed_by_seed(tmp_path: Path) -> None:
    # By seed 0.1, 0.2, 0.3, 0.4, 0.5: standard deviation 0.158, of the mean 0.0707.
    change = {"rotary": dict(enumerate((0.0, 0.2, 0.2, 0.6, 0.5))), "alibi": dict(enumerate((0.2, 0.2, 0.4, 0.2, 0.5)))}
    values = {}
    for position, by_seed in change.items():
        values["kept", position] = {seed: ablation(3.0 + seed, 9) for seed in by_seed}
        values["dropped", position] = {seed: ablation(9, 3.0 + seed + value) for seed, value in by_seed.items()}
    study = sweep(tmp_path, ["arm", "model.position"], values)
    (average,) = (contrast for contrast in arms(study, question(study)) if contrast.is_average)
    half = 2.7764451051977987 * math.sqrt(0.025 / 5)  # t(0.975, 4 degrees of freedom)
    found = average.difference
    assert found.by == "paired t"
    assert (found.mean, found.low, found.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))


def test_arms_are_read_as_they_were_trained(tmp_path: Path) -> None:
    values = {
        ("kept",): {1: ablation(3.0, 9.0), 2: ablation(3.2, 9.0)},
        ("dropped",): {1: ablation(9.0, 2.9), 2: ablation(9.0, 3.0)},
    }
    study = sweep(tmp_path, ["arm"], values)
    asked = question(study)
    (contrast,) = arms(study, asked)
    assert (contrast.a.label, contrast.difference.mean) == ("dropped", pytest.approx(-0.15))
    assert [found.difference.mean for found in readings(study, asked)] == pytest.approx([5.9, -6.05])


def test_readings_are_those_that_runs_have_each_against_the_first(tmp_path: Path) -> None:
    def last(kept: float, turned: float, shuffled: float) -> dict[str, float]:
        return {f"ablation/{name}_1x": value for name, value in zip(WAYS, (kept, turned, shuffled), strict=True)}

    values = {("meta",): {1: last(3.0, 3.5, 5.0), 2: last(3.2, 3.9, 5.2)}, ("plain",): {1: {"ablation/kept_1x": 3.1}}}
    study = sweep(tmp_path, ["arm"], values, told={"readings": WAYS, "read_as_trained": "turned"})
    asked = question(study)
    assert (list(asked.names), asked.read) == (WAYS, "kept, turned or shuffled")
    found = {one.reading: one.difference.mean for one in readings(study, asked)}
    assert found == {"turned": pytest.approx(0.6), "shuffled": pytest.approx(2.0)}
    assert [asked.as_trained(condition) for condition in study.conditions] == ["turned", "kept"]  # what plain was asked
    page = report(study)
    headers = [block.header for block in page.blocks if isinstance(block, Table) and "that makes it" in block.header]
    assert [header[2:5] for header in headers] == [
        ["kept", "turned", "turned − kept"],
        ["kept", "shuffled", "shuffled − kept"],
    ]


@pytest.mark.parametrize("told", [3, "kept", [1, 2], {"kept": 1}])
def test_readings_that_are_no_names_are_refused(tmp_path: Path, told: Any) -> None:
    study = sweep(tmp_path, ["arm"], {("meta",): {1: ablation(3.0, 3.5)}}, told={"readings": told})
    with pytest.raises(UserError, match=r"arm\.json: readings=.*: expected a list of names"):
        question(study)


def test_an_arm_without_meta_tokens_is_read_the_one_way_that_it_has(tmp_path: Path) -> None:
    values = {("plain", "dropped"): {1: {"ablation/kept_1x": 3.0}}, ("meta", "dropped"): {1: ablation(9.0, 2.5)}}
    study = sweep(tmp_path, ["arm", "positions"], values)
    (contrast,) = arms(study, question(study))
    assert (contrast.a.label, contrast.difference.mean) == ("meta", -0.5)


SEEDS = range(6)


def test_p_is_corrected_for_all_lengths_together(tmp_path: Path) -> None:
    plain = {seed: answers(x1=0.1 * seed, x2=0.1) for seed in SEEDS}
    # All six are better at 1x: p is 2 of 64 patterns, half of each counting: 1/64. At 2x one alone is worse, and most.
    meta = {seed: answers(x1=0.1 * seed + 0.2 + 0.01 * seed, x2=0.1 + (0.01 if seed else -0.09)) for seed in SEEDS}
    study = sweep(tmp_path, ["arm"], {("plain",): plain, ("meta",): meta})
    one, two = arms(study, question(study))
    assert one.difference.by == two.difference.by == "sign flips"
    assert one.difference.p == pytest.approx(1 / 64)
    assert one.difference.p < two.difference.p
    assert (one.holm, two.holm) == pytest.approx((2 * one.difference.p, two.difference.p))
    assert one.is_sure
    assert not two.is_sure


TEXT = {"data.task": None}


@pytest.mark.parametrize(
    ("scored", "config", "by"),
    [
        (None, TEXT, "Welch"),  # an older run: nobody knows what it was scored on
        ("abc", TEXT, "paired t"),
        (None, {}, "paired t"),  # held-out prompts of a task are decided by its options
    ],
)
def test_only_what_is_known_to_be_scored_on_the_same_text_is_paired(
    scored: str | None, config: dict[str, None], by: str, tmp_path: Path
) -> None:
    runs = [
        write_run(tmp_path / f"{arm}{seed}", arm, seed=seed, scored=scored, config=config, **loss)
        for arm, base in (("plain", 3.0), ("meta", 3.1))
        for seed in range(5)
        for loss in [{"values": [base + seed / 10 + seed**2 / 100 * (arm == "meta")], "metric": "loss/val"}]
    ]
    study = of_runs(runs, "runs")
    (contrast,) = arms(study, question(study))
    assert contrast.difference.by == by
    text = markdown(report(study), "pictures")
    assert ("Text not known to be the same: nothing is paired." in text) == (by == "Welch")


def test_runs_that_are_scored_on_different_text_are_refused_by_name(tmp_path: Path) -> None:
    within = {**TEXT, "data.meta_length": "within"}
    runs = [
        write_run(tmp_path / "plain", "plain", values=[3.0], metric="loss/val", config=within, scored="aaa"),
        write_run(tmp_path / "meta", "meta", values=[3.0], metric="loss/val", config=within, scored="bbb"),
    ]
    expected = (
        r"meta: scored on text bbb of 48,960 targets, but .*plain on text aaa of 48,960 targets \("
        r"data.meta_placement=hint and none; with data.meta_length=within marks take the place of text, .*\); expected"
    )
    with pytest.raises(UserError, match=expected):
        of_runs(runs, "runs")
    rows = [{"state": "done", "seconds": 1.0, "seed": 1, "arm": arm} for arm in ("plain", "meta")]
    with pytest.raises(UserError, match=expected):
        of_sweep(pd.DataFrame(rows), runs, ["arm", "seed"], "seed", title="a sweep")


def test_a_report_says_who_ended_elsewhere(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / arm, arm, values=[0.5], tokens_a_step=n) for arm, n in (("plain", 100), ("meta", 150))]
    text = markdown(report(of_runs(runs, "runs")), "pictures")
    assert "Not at equal source tokens: meta ended at 1,500 source tokens, plain at 1,000." in text
    assert "Not at equal training FLOPs: meta ended at 1.5e+04 training FLOPs, plain at 1e+04." in text
