"""What `compare` says: arms by what they spent, differences at equal budgets, and why some are not compared."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from lightning_metatok.analysis.statistics import holm
from lightning_metatok.report.budgets import (
    UNITS,
    Cell,
    cells,
    ended,
    ended_together,
    same_parameters,
    scale,
    schedule_note,
    verdict,
)
from lightning_metatok.report.estimates import (
    CONFIDENCE,
    POWER,
    Difference,
    difference,
    is_accuracy,
    runs_text,
    smallest_p,
    solved_text,
)
from lightning_metatok.report.runs import Condition
from lightning_metatok.report.scored_text import NOT_KNOWN, is_known

MARK = "*"
"""Stands at values that decide nothing."""


@dataclass(frozen=True)
class Pair:
    """A cell against the one that it is measured against, both ended at one budget. `holm`: p, corrected."""

    a: Cell
    b: Cell
    found: Difference
    holm: float

    @property
    def said(self) -> str:
        """What the difference shows."""
        if not self.found.by:
            return runs_text(self.found.n_seeds)
        if not math.isfinite(self.found.p):
            return "no spread"
        return "told apart" if self.holm < 1 - CONFIDENCE else "not told apart"

    @property
    def in_words(self) -> str:
        """The difference with its interval, or why there is none to tell."""
        a, b, found = self.a.condition.label, self.b.condition.label, self.found
        if self.said != "told apart":
            return f"{a} and {b}: {self.said}"
        return f"{a} − {b}: {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


@dataclass(frozen=True)
class Comparison:
    """One table: groups of rows, what they spent, the differences, and what is to be said below."""

    title: str
    budget: str
    groups: list[list[Cell]]
    pairs: list[Pair]
    verdict: str
    notes: list[str]

    @property
    def finding(self) -> str:
        """The differences in words."""
        return "; ".join(pair.in_words for pair in self.pairs)


def compare(groups: list[Condition], metric: str, solved: float, against: Condition | None = None) -> list[Comparison]:
    """Return the three tables: by source tokens, by FLOPs, and at equal parameters (and source tokens).

    Args:
        against: the condition that the others are measured against, where a table has it (the plain one, else its
            first).
    """
    comparisons = []
    schedule = schedule_note(groups)
    for budget, unit in UNITS.items():
        rows = cells(groups, metric, budget, solved)
        pairs, notes = _pairs([rows], metric, budget, against)
        why = verdict(rows, metric)
        if why:
            notes.insert(0, f"{MARK} {why}")
        if is_accuracy(metric) and not any(condition.is_plain for condition in groups):
            notes.append("no plain arm among these runs says whether the task is out of reach, or too easy")
        if schedule:
            notes.append(schedule)
        at = f"at equal {unit}: {ended(rows[0], budget)}" if ended_together(*rows) else f"by {unit} (not all equal)"
        comparisons.append(Comparison(at, budget, [rows], pairs, why, notes))

    tokens = comparisons[0]
    cell_of = {cell.condition: cell for cell in tokens.groups[0]}
    together, alone = same_parameters(groups)
    rows_of = [[cell_of[condition] for condition in group] for group in together]
    pairs, notes = _pairs(rows_of, metric, tokens.budget, against)
    if together and tokens.verdict:
        notes.insert(0, f"{MARK} {tokens.verdict}")
    if alone:
        names = "; ".join(f"{condition.label} ({condition.parameters:,})" for condition in alone)
        notes.append(f"no partner with as many parameters: {names}")
    title = f"at equal parameters (and {UNITS[tokens.budget]})"
    return [*comparisons, Comparison(title, tokens.budget, rows_of, pairs, tokens.verdict, notes)]


def base_of(groups: Sequence[Condition], against: Condition | None = None) -> Condition:
    """Return the condition that the others are measured against: `against`, the plain one, or the first."""
    if against is not None and against in groups:
        return against
    return next((condition for condition in groups if condition.is_plain), groups[0])


def _pairs(
    groups: Sequence[Sequence[Cell]], metric: str, budget: str, against: Condition | None
) -> tuple[list[Pair], list[str]]:
    """Differences within each group, against its base, and what is to be said of them."""
    found: list[tuple[Cell, Cell, Difference]] = []
    apart, runs = [], [run for group in groups for cell in group for run in cell.condition.runs]
    known = is_known(runs)
    for group in groups:
        of_group = base_of([cell.condition for cell in group], against)
        base = next(cell for cell in group if cell.condition is of_group)
        for cell in group:
            if cell is base:
                continue
            if not ended_together(cell, base):
                one, other = (f"{c.condition.label} ended at {ended(c, budget)}" for c in (cell, base))
                apart.append(f"{one} {UNITS[budget]}, {other}: not compared")
                continue
            found.append((cell, base, difference(cell.values, base.values, share=is_accuracy(metric), paired=known)))
    corrected = holm([one.p for _, _, one in found])
    pairs = [Pair(a, b, one, float(p)) for (a, b, one), p in zip(found, corrected, strict=True)]
    notes = apart
    tests = [one for _, _, one in found if math.isfinite(one.p)]
    if tests:
        corrected_for = f"p is corrected for {len(tests)} tests (Holm); " if len(tests) > 1 else ""
        notes.append(
            f"{corrected_for}found in {POWER:.0%}: the smallest true difference that as many seeds with this spread "
            f"would have found with a power of {POWER:.0%}"
        )
        if (least := smallest_p(tests)) * len(tests) >= 1 - CONFIDENCE:
            notes.append(f"so few seeds give a p of {least:.3f} at least: after the correction not all can be sure")
    if not known and len(runs) > 1:
        notes.append(NOT_KNOWN)
    return pairs, notes


def as_tables(comparison: Comparison, metric: str) -> list[Table]:
    """Return a comparison for the terminal: its arms, and their differences; nothing where there are no arms."""
    if not comparison.groups:
        return []
    about = scale([cell.condition for group in comparison.groups for cell in group])
    found = [_arms(comparison, metric, about)]
    return [*found, _differences(comparison, metric)] if comparison.pairs else found


def _arms(comparison: Comparison, metric: str, about: str) -> Table:
    table = Table(title=f"{metric} {comparison.title}", title_justify="left", caption=about, caption_justify="left")
    rows = [cell for group in comparison.groups for cell in group]
    solves = any(cell.estimate.solved for cell in rows)
    last = "solved (over runs)" if solves else f"{CONFIDENCE:.0%} interval"
    table.add_column("arm")
    for name in ("parameters", "seeds", "mean", "smallest, largest", last, "ended at"):
        table.add_column(name, justify="right", no_wrap=True)
    digits = 3 if is_accuracy(metric) else 4
    for group in comparison.groups:
        for cell in group:
            found = cell.estimate
            ends = f"[{found.low:.{digits}f}, {found.high:.{digits}f}]" if found.interval else ""
            if found.interval == "wilson":  # of its prompts: says how well this run does, not how well such runs do
                ends = f"1 run's {ends}"
            elif found.solved is not None:
                ends = escape(solved_text(found.solved))
            table.add_row(
                escape(cell.condition.label),
                f"{cell.condition.parameters:,}",
                str(found.n_seeds),
                f"{found.mean:.{digits}f}{MARK if comparison.verdict else ''}",
                f"{found.smallest:.{digits}f}, {found.largest:.{digits}f}",
                ends or ("no interval" if found.n_seeds > 1 else "1 run"),
                ended(cell, comparison.budget),
                end_section=cell is group[-1],
            )
    return table


def _differences(comparison: Comparison, metric: str) -> Table:
    table = Table(title="differences", title_justify="left")
    table.add_column("difference")
    for name in ("mean", f"{CONFIDENCE:.0%} interval", "p", "by", f"found in {POWER:.0%}", "verdict"):
        table.add_column(name, justify="right", no_wrap=True)
    digits = 3 if is_accuracy(metric) else 4
    for pair in comparison.pairs:
        found = pair.found
        table.add_row(
            escape(f"{pair.a.condition.label} - {pair.b.condition.label}"),
            f"{found.mean:+.{digits}f}",
            f"[{found.low:+.{digits}f}, {found.high:+.{digits}f}]" if found.has_interval else "-",
            f"{pair.holm:.3f}" if math.isfinite(pair.holm) else "-",
            found.by or "-",
            f"{found.detectable:.{digits}f}" if math.isfinite(found.detectable) else "-",
            pair.said,
        )
    return table


def solving_comparison(
    groups: Sequence[Condition], metric: str, solved: float, against: Condition | None = None
) -> Table:
    """Return the steps at which runs reached an accuracy, arm by arm, each against the base."""
    from lightning_metatok.report.solving import solving_table, solvings

    base = base_of(groups, against)
    found = solvings(groups, metric, solved)
    content = solving_table(found, [(condition, base) for condition in groups if condition is not base])
    title, about = f"steps to {solved:g} of {metric}", scale(groups)
    table = Table(title=title, title_justify="left", caption=about, caption_justify="left")
    for number, name in enumerate(content.header):
        table.add_column(name, justify="right" if number in content.numbers else "left")
    for row in content.rows:
        table.add_row(*map(escape, row))
    return table


def as_csv(comparisons: Sequence[Comparison], metric: str) -> str:
    """Return all tables as one CSV; what is not known is empty, `group` counts equal parameter counts."""
    rows: list[dict[str, Any]] = []
    for name, comparison in zip(("source_tokens", "flops", "parameters"), comparisons, strict=True):
        pairs = {pair.a.condition: pair for pair in comparison.pairs}
        for number, group in enumerate(comparison.groups):
            rows += [
                {"table": name, "budget": comparison.budget, "group": number}
                | _row(cell, metric, pairs.get(cell.condition))
                | {"verdict": comparison.verdict}
                for cell in group
            ]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _row(cell: Cell, metric: str, pair: Pair | None) -> dict[str, Any]:
    found, solved = cell.estimate, cell.estimate.solved
    row: dict[str, Any] = {
        "arm": cell.condition.label,
        "parameters": cell.condition.parameters,
        "seeds": found.n_seeds,
        "metric": metric,
        "mean": found.mean,
        "smallest": found.smallest,
        "largest": found.largest,
        "low": found.low,
        "high": found.high,
        "interval": found.interval,
        "solved": None if solved is None else solved.n_solved,
        "solved_low": None if solved is None else solved.low,
        "solved_high": None if solved is None else solved.high,
        "ended_at_least": cell.ended_at[0],
        "ended_at_most": cell.ended_at[1],
        "against": pair.b.condition.label if pair else None,
    }
    change = pair.found if pair else Difference(math.nan, 0)
    row |= {f"difference_{key}": getattr(change, key) for key in ("mean", "low", "high", "by", "detectable")}
    row |= {"p": change.p, "p_holm": pair.holm if pair else None, "difference": pair.said if pair else None}
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
