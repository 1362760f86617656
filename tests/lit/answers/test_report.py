"""Cells, slices, tables, CSV and figures say what the answers were."""

import csv
import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import AxesImage
from rich.console import Console

from lightning_metatok import tasks
from lightning_metatok.analysis.statistics import mcnemar, paired_bootstrap, wilson_interval
from lightning_metatok.data.examples import ANSWER, Examples
from lightning_metatok.lit.answers.ask import Answers
from lightning_metatok.lit.answers.conditions import FULL, MarkCondition
from lightning_metatok.lit.answers.figures import PLACES, error_figure, length_figure, place_figure
from lightning_metatok.lit.answers.report import (
    AnswerCell,
    Slice,
    error_kinds,
    groups,
    make_cell,
    make_slices,
    print_answers,
    to_csv,
)

TASK = tasks.build("list_recall", n_lists=(2, 4), list_length=(2, 5), pool=12)
EXAMPLES = TASK.examples(400, seed=0, split="test")
REMOVED = MarkCondition("marks_removed", "marks removed", "marks", marks="removed")
ZEROED = MarkCondition("no_embedding", "embedding zeroed", "embedding", zero_meta_embedding=True)


def answers(share: float, seed: int = 0, examples: Examples = EXAMPLES) -> Answers:
    """Answers of one token, `share` of which are right; the others are any token of the vocabulary's first 400."""
    draws, n = np.random.default_rng(seed), len(examples)
    right = draws.random(n) < share
    given = draws.integers(0, 400, n)
    target = examples.tokens[(examples.flags & ANSWER) > 0]
    right |= given == target
    return Answers(right.astype(np.int64), np.ones(n, dtype=np.int64), np.where(right, -1, given))


def grid(
    multiples: tuple[float, ...] = (1, 2), conditions: tuple[MarkCondition, ...] = (REMOVED, ZEROED)
) -> list[AnswerCell]:
    cells = []
    for multiple in multiples:
        full = answers(0.8 / multiple)
        cells.append(make_cell(FULL, multiple, EXAMPLES, full))
        cells += [make_cell(c, multiple, EXAMPLES, answers(0.4, i + 1), full) for i, c in enumerate(conditions)]
    return cells


def test_a_cell_holds_the_shares_their_intervals_and_the_paired_difference() -> None:
    full, other = answers(0.8), answers(0.5, seed=1)
    cell = make_cell(REMOVED, 1.5, EXAMPLES, other, full)
    assert (cell.n, cell.tokens) == (400, EXAMPLES.lengths.mean())
    assert cell.scalars == {
        "answers/marks_removed_1.5x": cell.exact,
        "answer_tokens/marks_removed_1.5x": cell.token_accuracy,
    }
    assert cell.exact == other.exact.mean()
    assert (cell.low, cell.high) == wilson_interval(other.exact.sum(), 400)
    assert (cell.difference, cell.diff_low, cell.diff_high) == paired_bootstrap(other.exact, full.exact)
    assert cell.mcnemar_p == mcnemar(other.exact, full.exact)
    assert cell.exact + cell.in_target + cell.in_prompt + cell.outside == pytest.approx(1)
    alone = make_cell(FULL, 1, EXAMPLES, full)
    assert (alone.difference, alone.diff_low, alone.diff_high, alone.mcnemar_p) == (None, None, None, None)


def test_the_interval_of_token_accuracy_counts_prompts_not_tokens() -> None:
    of_five = Answers(np.full(400, 4), np.full(400, 5), np.zeros(400, dtype=np.int64))
    cell = make_cell(FULL, 1, EXAMPLES, of_five)
    assert (cell.exact, cell.token_accuracy) == (0, 0.8)
    assert (cell.token_low, cell.token_high) == wilson_interval(320, 400)


@pytest.mark.parametrize(
    ("share", "other", "decides"),
    [(0.99, 0.99, False), (0.05, 0.05, False), (0.99, 0.05, True), (0.5, 0.05, True), (0.99, 0.5, True)],
)
def test_a_comparison_decides_nothing_at_the_ceiling_or_at_the_floor(share: float, other: float, decides: bool) -> None:
    assert make_cell(REMOVED, 1, EXAMPLES, answers(other, 1), answers(share)).informative is decides
    assert make_cell(FULL, 1, EXAMPLES, answers(share)).informative is (share == 0.5)


@pytest.mark.parametrize("placement", ["hint", "every", "none"])
def test_error_kinds_equal_a_look_at_each_prompt(placement: str) -> None:
    """List recall in symbols has its lists in order, so the target's items stand behind its name's first place."""
    task = tasks.build("list_recall", placement=placement, n_lists=(2, 4), list_length=(2, 5), pool=12)
    examples = task.examples(300, seed=1, split="test")
    names = {int(task.lexicon.tokenizer.encode(f"L{i}")[0]) for i in range(256)}
    question, meta = task.lexicon.tokenizer.encode("?")[0], task.lexicon.tokenizer.meta_id
    draws = np.random.default_rng(0)
    # Half of the tokens given are of the prompt, the question included, and some are marks.
    given = np.array(
        [draws.choice(examples[i].tokens) if draws.random() < 0.7 else draws.integers(0, 400) for i in range(300)]
    )
    target = np.array([examples[i].answer[0] for i in range(300)])
    right = given == target
    said = Answers(right.astype(np.int64), np.ones(300, dtype=np.int64), np.where(right, -1, given))
    kinds = error_kinds(examples, said)
    assert set(kinds) == {0, 1, 2, 3}
    for i in range(300):
        tokens = [int(token) for token in examples[i].tokens[:-1] if token != meta]
        body = tokens[: tokens.index(question)]
        start = body.index(tokens[-2]) + 1  # the question names the target, then which item
        end = next((j for j in range(start, len(body)) if body[j] in names), len(body))
        expected = 0 if right[i] else 1 if given[i] in body[start:end] else 2 if given[i] in tokens else 3
        assert kinds[i] == expected, task.text(examples[i])


def test_slices_hold_every_item_once_and_the_same_items_under_all_conditions() -> None:
    full, other = answers(0.8), answers(0.4, 1)
    slices, disturbed = (make_slices(c, 1, EXAMPLES, a) for c, a in ((FULL, full), (REMOVED, other)))
    names = {s.name for s in slices}
    assert names == {"length", "n_lists", "list_length", "k", "position", "distance", "back"}
    for name in names:
        of_name = [s for s in slices if s.name == name]
        assert sum(s.n for s in of_name) == 400
        assert sum(s.exact * s.n for s in of_name) == pytest.approx(full.exact.sum())
        assert [(s.smallest, s.largest, s.n) for s in of_name] == [
            (s.smallest, s.largest, s.n) for s in disturbed if s.name == name
        ]
        assert all(a.largest < b.smallest for a, b in itertools.pairwise(of_name))
    third = next(s for s in slices if (s.name, s.smallest) == ("k", 3))
    assert third.exact == full.exact[EXAMPLES.slices["k"] == 3].mean()


def test_many_values_become_groups_of_about_equal_size() -> None:
    values = np.concatenate([np.random.default_rng(0).integers(0, 1000, 1200), np.full(50, -1)])
    parts = groups(values)
    assert np.array_equal(parts[0], values == -1)
    assert np.sum(parts, axis=0).tolist() == [1] * 1250
    assert all(85 <= part.sum() <= 115 for part in parts[1:])


def test_csv_reads_back_as_the_cells() -> None:
    cells = grid()
    rows = list(csv.DictReader(io.StringIO(to_csv(cells, AnswerCell))))
    assert [row["condition"] for row in rows] == [cell.condition for cell in cells]
    for row, cell in zip(rows, cells, strict=True):
        assert float(row["exact"]) == pytest.approx(cell.exact, rel=1e-5)
        assert row["mcnemar_p"] == "" if cell.mcnemar_p is None else float(row["mcnemar_p"]) <= 1
    slices = make_slices(FULL, 1, EXAMPLES, answers(0.5))
    assert len(to_csv(slices, Slice).splitlines()) == 1 + len(slices)


def test_the_table_fits_120_columns_and_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    cells = grid((1, 1.5, 2, 4, 8, 16), (REMOVED, ZEROED))
    print_answers(Console(width=120), cells)
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines()) <= 120
    assert "…" not in printed
    for cell in cells:
        assert f"{cell.exact:.2f} [{cell.low:.2f}, {cell.high:.2f}]" in printed
        if cell.difference is not None:
            assert f"{cell.difference:+.2f}" in printed
    assert printed.count("as trained") == 2, "two tables, each with the undisturbed prompts"
    assert "decides nothing" in printed, "8x and 16x are near the floor"


def test_the_usual_lengths_stand_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    longer = [replace(cell, tokens=1234.0) for cell in grid((1, 1.5, 2, 4, 8), ())]
    print_answers(Console(width=120), [*longer, *(cell for cell in grid() if cell.difference is not None)])
    assert capsys.readouterr().out.count("as trained") == 1


def test_nothing_is_printed_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_answers(Console(width=120), [])
    assert capsys.readouterr().out == ""


# -- figures


def test_curves_show_the_cells_of_their_condition() -> None:
    cells = grid((1, 2, 4))
    figure = length_figure(cells)
    assert [axes.get_title() for axes in figure.axes] == ["places of marks", "embedding of marks"]
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert lines.keys() == {"as trained", "marks removed"}
    for label, values in lines.items():
        assert list(values) == [cell.exact for cell in cells if cell.label == label]
    assert len(length_figure(grid((1, 2), ())).axes) == 1


def test_the_map_of_places_holds_the_accuracy_of_each_field() -> None:
    full = answers(0.6)
    figure = place_figure({1.0: (EXAMPLES, full), 2.0: (EXAMPLES, answers(0.3))})
    assert figure is not None
    images = [image for axes in figure.axes for image in axes.images if isinstance(image, AxesImage)]
    shown_RC = np.ma.filled(images[0].get_array().astype(float), np.nan)
    k, place = EXAMPLES.slices["k"], EXAMPLES.slices["position"] / EXAMPLES.lengths
    assert shown_RC.shape == (5, PLACES)
    for row in range(5):
        for column in range(PLACES):
            here = (k == row + 1) & (place >= column / PLACES) & (place < (column + 1) / PLACES)
            if here.sum() >= 10:
                assert shown_RC[row, column] == pytest.approx(full.exact[here].mean())
            else:
                assert np.isnan(shown_RC[row, column])
    assert np.isfinite(shown_RC).sum() >= 10


def test_no_map_where_prompts_do_not_say_where_the_answer_stands() -> None:
    slices = {**EXAMPLES.slices, "position": np.full(400, -1)}
    nowhere = Examples(EXAMPLES.tokens, EXAMPLES.flags, EXAMPLES.offsets, slices)
    assert place_figure({1.0: (nowhere, answers(0.6))}) is None


def test_bars_of_errors_add_up_and_show_the_cells() -> None:
    cells = grid((1, 2))
    figure = error_figure(cells)
    by_length, by_condition = figure.axes
    assert [text.get_text() for text in by_condition.get_yticklabels()] == [c.label for c in cells[:3]]
    for axes, shown in ((by_length, [c for c in cells if c.kind == "as trained"]), (by_condition, cells[:3])):
        widths = np.array([bar.get_width() for bar in axes.patches]).reshape(4, len(shown))
        assert widths.sum(axis=0) == pytest.approx(np.ones(len(shown)))
        assert widths[0] == pytest.approx([cell.exact for cell in shown])
    assert len(error_figure(grid((1, 2), ())).axes) == 1
