"""The finding says who leads, and does not say more than the seeds do."""

from pathlib import Path

from lightning_metatok.report.contrasts import arms, means
from lightning_metatok.report.finding import finding
from lightning_metatok.report.lengths import question
from lightning_metatok.report.study import Study
from tests.report.studies import Values, ablation, answers, sweep


def said(study: Study) -> str:
    """The finding of a study."""
    asked = question(study)
    return finding(study, asked, means(study, asked), arms(study, asked))


def test_the_leader_at_the_first_and_the_last_length(tmp_path: Path) -> None:
    meta = {1: answers(x1=0.90, x2=0.1, x4=0.2), 2: answers(x1=0.92, x2=0.1, x4=0.1), 3: answers(x1=0.91, x2=0.1, x4=0)}
    plain = {seed: answers(x1=0.1 + seed / 100, x2=0.9, x4=0.11) for seed in (1, 2, 3)}
    text = said(sweep(tmp_path, ["arm"], {("meta",): meta, ("plain",): plain}))
    assert text == (
        "At 1× **meta** is best (0.910 [0.885, 0.935]): beyond chance better than plain. "
        "At 4× **plain** is best (0.110): not told apart from meta."
    )


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    text = said(sweep(tmp_path, ["arm"], {("meta",): {1: answers(x1=0.9)}, ("plain",): {1: answers(x1=0.2)}}))
    assert text == ("At 1× **meta** is best (0.900 (one seed: no interval)): with one seed, nothing is known of plain.")


def test_with_two_axes_the_sides_are_named(tmp_path: Path) -> None:
    values: Values = {}
    for position, change in (("rotary", -0.5), ("alibi", 0.5), ("fire", 0.0)):
        for seed, noise in ((1, 0.01), (2, -0.01), (3, 0.005)):
            values.setdefault(("kept", position), {})[seed] = ablation(3.0 + seed, 9)
            values.setdefault(("dropped", position), {})[seed] = ablation(9, 3.0 + seed + change + noise)
    text = said(sweep(tmp_path, ["arm", "model.position"], values))
    assert text.startswith(
        "At 1× **dropped** against **kept**: on average not told apart (+0.002 [−0.024, +0.028]), "
        "better with rotary, worse with alibi, not told apart with fire;"
    )
    assert "best of all is **dropped, rotary**" in text
