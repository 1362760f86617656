"""Solved or not: the step at which each run first reached an accuracy, runs that never did included.

    unsolved 1 |---.                Kaplan-Meier's share of runs that have NOT reached it yet. A run that ends unsolved
               |   '-----.__ plain  counts as unsolved up to its end, not as one that never would.
               |   meta '--.
             0 +----------------- steps

Where runs solve a task or do not, a mean of accuracies describes none of them; steps to a stated accuracy do.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.analysis.statistics import holm
from lightning_metatok.report.budgets import scale
from lightning_metatok.report.contrasts import pairs
from lightning_metatok.report.estimates import FEWEST, runs_text
from lightning_metatok.report.lengths import Question
from lightning_metatok.report.page import Block, Heading, Paragraph, Picture, Table
from lightning_metatok.report.runs import Condition, Run
from lightning_metatok.report.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRIC = "accuracy/exact/val"


@dataclass(frozen=True)
class Solving:
    """A run of a condition each: `steps_n` where it reached the accuracy, or its last step where it never did."""

    steps_n: NDArray[np.float64]
    solved_n: NDArray[np.bool_]

    @property
    def median(self) -> float:
        """The step at which half of the runs have reached it (Kaplan-Meier); NaN where fewer ever do."""
        from lightning_metatok.analysis import seeds

        found = seeds.kaplan_meier(self.steps_n, self.solved_n)
        reached = found.steps[found.unsolved <= 0.5]
        return float(reached[0]) if len(reached) else math.nan


def reached(run: Run, metric: str, accuracy: float) -> tuple[float, bool]:
    """Return the first step at which a run logged `accuracy` or more, and whether it ever did."""
    steps, values = run.logged(metric)
    at = np.flatnonzero(values >= accuracy)
    return (float(steps[at[0]]), True) if len(at) else (float(steps[-1]), False)


def solvings(conditions: Sequence[Condition], metric: str, accuracy: float) -> dict[Condition, Solving]:
    """Return how runs got there, of every condition whose runs all logged the metric."""
    found = {}
    for condition in conditions:
        if all(metric in run.metrics for run in condition.runs):
            ends = [reached(run, metric, accuracy) for run in condition.runs]
            found[condition] = Solving(np.array([at for at, _ in ends]), np.array([solved for _, solved in ends]))
    return found


def log_rank_p(found: Mapping[Condition, Solving], compared: Sequence[tuple[Condition, Condition]]) -> list[float]:
    """Return Holm's p of the log-rank test for pairs of conditions; NaN with fewer than five runs, or none solved."""
    ps = []
    for a, b in compared:
        if min(len(a.runs), len(b.runs)) < FEWEST:
            ps.append(math.nan)
            continue
        from lightning_metatok.analysis import seeds

        one, other = found[a], found[b]
        ps.append(seeds.log_rank(one.steps_n, one.solved_n, other.steps_n, other.solved_n))
    return [float(p) for p in holm(ps)]


def solving(study: Study, asked: Question) -> Iterator[Block]:
    """The section of a report; nothing where no run was asked exactly."""
    found = solvings(study.conditions, METRIC, asked.solved) if asked.solved else {}
    if not found:
        return
    from lightning_metatok.report.figures import png, solving_figure

    about = scale(list(found))
    yield Heading("Solved or not")
    if len(found) <= 7:
        caption = f"Share of runs without {asked.solved:g} of exact answers yet (Kaplan-Meier), by step. {about}."
        yield Picture("solving", png(solving_figure(found, asked.solved)), caption)
    compared = [(a, b) for a, b in pairs(study, asked) if a in found and b in found]
    yield solving_table(found, compared, f"Of the held-out prompts of the trained length. {about}.")
    tests = sum(math.isfinite(p) for p in log_rank_p(found, compared))
    if tests:
        yield Paragraph(f"p: log-rank test that two conditions solve at the same pace, corrected for {tests} (Holm).")


def solving_table(
    found: Mapping[Condition, Solving], compared: Sequence[tuple[Condition, Condition]], caption: str = ""
) -> Table:
    """Return a row a condition: how many runs got there, when half had, and p against what it is compared with."""
    against = {a: (b, p) for (a, b), p in zip(compared, log_rank_p(found, compared), strict=True)}
    rows = []
    for condition, one in found.items():
        median = f"{one.median:,.0f}" if math.isfinite(one.median) else "–"
        base, p = against.get(condition, (None, math.nan))
        n = min(len(condition.runs), len(base.runs)) if base else 0
        unknown = runs_text(n) if n < FEWEST else "none solved"
        sure = "–" if base is None else f"{p:.3f}" if math.isfinite(p) else unknown
        count = f"{int(one.solved_n.sum())} of {len(one.solved_n)}"
        rows.append([condition.label, count, median, base.label if base else "–", sure])
    header = ["condition", "reached it", "half had at step", "compared with", "p (log-rank)"]
    return Table(header, rows, frozenset({1, 2, 4}), caption)


def draw_unsolved(axes: "Axes", one: Solving, **style: Any) -> Any:
    """Draw one condition's Kaplan-Meier curve, its runs that ended unsolved as ticks; return its line."""
    from lightning_metatok.analysis import seeds

    found = seeds.kaplan_meier(one.steps_n, one.solved_n)
    steps = np.concatenate([[0.0], found.steps])
    (line,) = axes.step(steps, np.concatenate([[1.0], found.unsolved]), where="post", **style)
    ended = one.steps_n[~one.solved_n]
    at = np.searchsorted(found.steps, ended, side="right")
    axes.plot(ended, np.concatenate([[1.0], found.unsolved])[at], "|", color=line.get_color(), markersize=9)
    return line
