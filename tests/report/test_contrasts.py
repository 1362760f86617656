"""Differences, intervals and p against numbers worked out by hand."""

import math
from pathlib import Path

import pytest

from lightning_metatok.report.contrasts import arms, compare, pairs, readings
from lightning_metatok.report.lengths import question
from tests.report.studies import ablation, answers, sweep


def test_paired_by_seed_what_a_seed_does_to_both_cancels_out() -> None:
    # a - b is 0.1, 0.2, 0.3: mean 0.2, standard deviation 0.1, t = 0.2 / (0.1 / sqrt 3) = 3.4641 with 2 degrees.
    found, p, by = compare({1: 5.1, 2: 0.2, 3: -2.7}, {1: 5.0, 2: 0.0, 3: -3.0})
    assert by == "paired"
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half))
    t = 2 * math.sqrt(3)
    assert p == pytest.approx(1 - t / math.sqrt(t * t + 2))  # Student's distribution with 2 degrees, in closed form


def test_only_seeds_that_both_have_are_paired() -> None:
    found, _, by = compare({1: 1.0, 2: 2.0, 9: 100.0}, {1: 0.5, 2: 1.0, 7: -100.0})
    assert (found.mean, found.n_seeds, by) == (0.75, 2, "paired")


def test_without_shared_seeds_it_is_welchs_test() -> None:
    # Means 2 and 5, both with variance 1 over 3 seeds: t = -3 / sqrt(2/3), 4 degrees of freedom.
    found, p, by = compare({1: 1.0, 2: 2.0, 3: 3.0}, {4: 4.0, 5: 5.0, 6: 6.0})
    half = 2.7764451051977987 * math.sqrt(2 / 3)
    assert by == "welch"
    assert (found.mean, found.low, found.high) == pytest.approx((-3, -3 - half, -3 + half))
    assert p == pytest.approx(0.021311641128756727, rel=1e-6)


def test_one_seed_has_no_interval_and_no_p() -> None:
    found, p, by = compare({1: 2.0}, {1: 1.5})
    assert (found.mean, found.interval, found.n_seeds, by) == (0.5, "", 1, "")
    assert math.isnan(p)


def test_differences_without_spread_prove_nothing() -> None:
    found, p, by = compare({1: 2.0, 2: 3.0}, {1: 1.5, 2: 2.5})
    assert (found.mean, found.interval, by) == (0.5, "", "paired")
    assert math.isnan(p)


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
    change = {"rotary": {1: 0.1, 2: 0.3}, "alibi": {1: 0.3, 2: 0.3}}  # by seed: 0.2 and 0.3
    values = {}
    for position, by_seed in change.items():
        values["kept", position] = {seed: ablation(3.0 + seed, 9) for seed in by_seed}
        values["dropped", position] = {seed: ablation(9, 3.0 + seed + value) for seed, value in by_seed.items()}
    study = sweep(tmp_path, ["arm", "model.position"], values)
    (average,) = (contrast for contrast in arms(study, question(study)) if contrast.is_average)
    half = 12.706204736174694 * 0.05  # t(0.975, 1 degree of freedom); standard deviation 0.0707 of two seeds
    found = average.difference
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25 - half, 0.25 + half))


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


def test_an_arm_without_meta_tokens_is_read_the_one_way_that_it_has(tmp_path: Path) -> None:
    values = {("plain", "dropped"): {1: {"ablation/kept_1x": 3.0}}, ("meta", "dropped"): {1: ablation(9.0, 2.5)}}
    study = sweep(tmp_path, ["arm", "positions"], values)
    (contrast,) = arms(study, question(study))
    assert (contrast.a.label, contrast.difference.mean) == ("meta", -0.5)


def test_p_is_corrected_for_all_lengths_together(tmp_path: Path) -> None:
    plain = {seed: answers(x1=0.1 * seed, x2=0.1) for seed in (1, 2, 3)}
    meta = {1: answers(x1=0.3, x2=0.1), 2: answers(x1=0.41, x2=0.2), 3: answers(x1=0.5, x2=0.05)}
    study = sweep(tmp_path, ["arm"], {("plain",): plain, ("meta",): meta})
    one, two = arms(study, question(study))
    assert one.p < two.p
    assert (one.holm, two.holm) == pytest.approx((2 * one.p, two.p))
    assert one.is_sure
    assert not two.is_sure


SEVERAL = {4: 4.0, 5: 5.0, 6: 6.5}


@pytest.mark.parametrize("one", [{1: 2.0}, {4: 2.0}])
@pytest.mark.parametrize("first", [True, False])
def test_one_seed_against_several_has_a_difference_and_nothing_else(one: dict[int, float], first: bool) -> None:
    a, b = (one, SEVERAL) if first else (SEVERAL, one)
    found, p, by = compare(a, b)
    assert found.mean == pytest.approx(sum(a.values()) / len(a) - sum(b.values()) / len(b))
    assert (found.n_seeds, found.interval, by) == (1, "", "")
    assert all(math.isnan(value) for value in (found.low, found.high, p))


def test_one_shared_seed_of_several_pairs_nothing() -> None:
    found, p, by = compare({1: 1.0, 2: 2.0}, {1: 4.0, 3: 6.0})
    assert (found.mean, found.n_seeds, found.interval, by) == (-3.5, 2, "t", "welch")
    # Variances 0.5 and 2 of two seeds each: t = -3.5 / sqrt(1.25), 25/17 degrees of freedom.
    assert p == pytest.approx(0.12904783554779067, rel=1e-6)  # the density of Student, integrated
