"""The finding says who leads, and does not say more than the seeds do."""

from pathlib import Path

from lightning_metatok.report.contrasts import arms, means
from lightning_metatok.report.finding import finding, headline
from lightning_metatok.report.lengths import question
from lightning_metatok.report.markdown import markdown
from lightning_metatok.report.sections import report
from lightning_metatok.report.study import Study
from tests.report.studies import Values, ablation, answers, sweep


def said(study: Study) -> str:
    """The finding of a study."""
    asked = question(study)
    return finding(study, asked, means(study, asked), arms(study, asked))


SIX = range(6)


def test_the_leader_at_the_first_and_the_last_length(tmp_path: Path) -> None:
    last = (0.2, 0.1, 0.0, 0.15, 0.05, 0.1)
    meta = {seed: answers(x1=0.90 + seed / 100, x2=0.1, x4=last[seed]) for seed in SIX}
    plain = {seed: answers(x1=0.1 + seed / 50, x2=0.9, x4=0.11) for seed in SIX}
    text = said(sweep(tmp_path, ["arm"], {("meta",): meta, ("plain",): plain}))
    assert text == (
        "At 1× **meta** (0.925, 0.900 to 0.950, solved by 6 of 6 runs) is best: beyond chance better than plain. "
        "At 4× **plain** (0.110, 0.110 to 0.110, solved by 0 of 6 runs) and **meta** (0.100, 0.000 to 0.200, solved "
        "by 0 of 6 runs) lead, not told apart (6 seeds find 0.101 in 80%)."
    )
    assert headline(text) == "At 1× meta is best: beyond chance better than plain"
    assert headline(text.partition(". ")[2]) == "At 4× plain and meta lead, not told apart"


def test_nobody_is_best_who_is_not_told_apart_from_somebody(tmp_path: Path) -> None:
    high = (0.90, 0.92, 0.91, 0.93, 0.95, 0.94, 0.92, 0.93)
    values: Values = {
        ("meta",): {seed: answers(x1=value) for seed, value in enumerate(high)},
        ("pause",): {seed: answers(x1=value - 0.01 * (-1) ** seed) for seed, value in enumerate(high)},
        ("plain",): {seed: answers(x1=value / 3) for seed, value in enumerate(high)},
    }
    study = sweep(tmp_path, ["arm"], values)
    text = said(study)
    assert "best" not in text
    assert "and **pause**" in text or "**pause**" in text.partition(" and ")[0]
    assert "lead, not told apart (8 seeds find" in text
    assert text.endswith("is beyond chance ahead of plain.")
    # So it is in the table: both that lead are strong, the third is not.
    rows = markdown(report(study), "pictures").splitlines()
    strong = {
        arm: any(row.startswith(f"| {arm} | 1,000 | 8 | **") for row in rows) for arm in ("meta", "pause", "plain")
    }
    assert strong == {"meta": True, "pause": True, "plain": False}


def test_few_runs_decide_nothing(tmp_path: Path) -> None:
    text = said(sweep(tmp_path / "1", ["arm"], {("meta",): {1: answers(x1=0.9)}, ("plain",): {1: answers(x1=0.2)}}))
    assert text == "At 1× **meta** (0.900, 1 run, no interval) is ahead by its mean; nothing is known of plain."
    values = {
        ("kept",): {seed: ablation(3.2 + seed, 9) for seed in (0, 1, 2, 3)},
        ("dropped",): {seed: ablation(9, 3.0 + seed) for seed in (0, 1, 2, 3)},
    }
    study = sweep(tmp_path / "4", ["arm"], values)
    assert said(study) == (
        "At 1× **dropped** (4.500, 3.000 to 6.000, 4 runs, no interval) is ahead by its mean; nothing is known of kept."
    )
    text = markdown(report(study), "pictures")
    assert "| 1× | dropped − kept | −0.200 | 4 runs, no interval | – | 4 | – | 4 runs, no interval |" in text
    assert "| dropped | 1,000 | 4 | 4.500 (3.000 to 6.000) | 4 runs, no interval |" in text


def test_with_two_axes_the_sides_are_named(tmp_path: Path) -> None:
    values: Values = {}
    for position, change, sign in (("rotary", -0.5, 1), ("alibi", 0.5, -1), ("fire", 0.0, 2)):
        for seed, noise in enumerate((0.01, -0.01, 0.005, -0.008, 0.004, -0.002)):
            values.setdefault(("kept", position), {})[seed] = ablation(3.0 + seed, 9)
            values.setdefault(("dropped", position), {})[seed] = ablation(9, 3.0 + seed + change + sign * noise)
    text = said(sweep(tmp_path, ["arm", "model.position"], values))
    assert text.startswith(
        "At 1× **dropped** against **kept**: on average not told apart (−0.000 [−0.006, +0.005]) "
        "(6 seeds find 0.008 in 80%), better with rotary, worse with alibi, "
        "not told apart with fire (6 seeds find 0.023 in 80%);"
    )
    assert "best" not in text
    assert text.endswith("beyond chance ahead of all others: **dropped, rotary** (5.000 [3.038, 6.961]).")
