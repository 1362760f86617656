"""`compare`: arms side by side, at equal source tokens, at equal FLOPs and at equal parameters.

    lightning-metatok compare runs/plain-1 runs/plain-2 runs/meta-1 runs/meta-2 --figure arms.png

Runs that differ in nothing but their seed make one row. Every run is read at the largest budget that all of them
reached; one that went on longer is read before its learning-rate schedule has ended, which the column `read at` shows.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from lightning_metatok.cli.output_file import check_output, writing
from lightning_metatok.console import printer
from lightning_metatok.errors import OptionParser, UserError, nearest
from lightning_metatok.report.budgets import (
    CONFIDENCE,
    Cell,
    cells,
    is_accuracy,
    largest_common_budget,
    same_parameters,
    verdict,
)
from lightning_metatok.report.runs import Condition, Run, conditions, read_run

DEFAULT_METRICS = ("accuracy/exact/val", "loss/val")
MARK = "*"
"""Stands at values that decide nothing."""


@dataclass(frozen=True)
class Comparison:
    """One table: groups of rows, the budget that they were read at, and what is to be said below."""

    title: str
    budget: str
    at: float
    groups: list[list[Cell]]
    verdict: str
    notes: list[str]


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok compare", description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", type=Path, help="run folders that `fit` wrote")
    parser.add_argument(
        "--metric", help=f"a name in metrics.jsonl ({DEFAULT_METRICS[0]}; for text {DEFAULT_METRICS[1]})"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the tables as CSV, too")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the metric against source tokens, as PNG")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the tables, and write what was asked for."""
    arguments = build_parser().parse(argv)
    if not arguments.runs:
        raise UserError("compare: expected run folders, as in `lightning-metatok compare runs/plain runs/meta`")
    for option in ("csv", "figure"):
        check_output(f"--{option}", getattr(arguments, option))

    runs = [read_run(folder) for folder in arguments.runs]
    metric = choose_metric(runs, arguments.metric)
    groups = conditions(runs)
    comparisons = compare(groups, metric)
    console = printer()
    for comparison in comparisons:
        if comparison.groups:
            console.print(as_table(comparison, metric))
        else:
            console.print(f"{metric} {comparison.title}", style="italic", highlight=False)
        for note in comparison.notes:
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        console.print()
    if arguments.csv is not None:
        with writing("--csv", arguments.csv):
            arguments.csv.write_text(as_csv(comparisons, metric), encoding="utf-8")
    if arguments.figure is not None:
        with writing("--figure", arguments.figure):
            draw(groups, metric, comparisons[0].at, arguments.figure)
    return 0


def choose_metric(runs: Sequence[Run], wanted: str | None) -> str:
    """Return the metric to compare: the wanted one, else the first default that a run logged.

    Raises:
        UserError: no run logged it.
    """
    logged = sorted(set().union(*(run.metrics for run in runs)))
    if wanted is None:
        wanted = next((metric for metric in DEFAULT_METRICS if metric in logged), DEFAULT_METRICS[0])
    if wanted not in logged:
        raise UserError(f"--metric={wanted}: no run logged it{nearest(wanted, logged)}")
    return wanted


def compare(groups: list[Condition], metric: str) -> list[Comparison]:
    """Return the three tables: equal source tokens, equal FLOPs, equal parameters (read at equal source tokens)."""
    runs = [run for condition in groups for run in condition.runs]
    comparisons = []
    for budget, unit in (("source_tokens", "source tokens"), ("flops", "training FLOPs")):
        at = largest_common_budget(runs, metric, budget)
        rows = cells(groups, metric, budget, at)
        shown = f"{at:,.0f}" if budget == "source_tokens" else f"{at:.3g}"
        why = verdict(rows, metric)
        notes = [f"{MARK} {why}"] if why else []
        if is_accuracy(metric) and not any(condition.is_plain for condition in groups):
            notes.append("no plain arm among these runs says whether the task is out of reach, or too easy")
        comparisons.append(Comparison(f"at equal {unit}: {shown}", budget, at, [rows], why, notes))

    tokens = comparisons[0]
    cell_of = {cell.condition: cell for cell in tokens.groups[0]}
    together, alone = same_parameters(groups)
    notes = [f"{MARK} {tokens.verdict}"] if together and tokens.verdict else []
    if alone:
        names = "; ".join(f"{condition.label} ({condition.parameters:,})" for condition in alone)
        notes.append(f"no partner with as many parameters: {names}")
    rows_of = [[cell_of[condition] for condition in group] for group in together]
    title = f"at equal parameters (and {tokens.at:,.0f} source tokens)"
    return [*comparisons, Comparison(title, tokens.budget, tokens.at, rows_of, tokens.verdict, notes)]


def as_table(comparison: Comparison, metric: str) -> Table:
    """Return a comparison for the terminal."""
    table = Table(title=f"{metric} {comparison.title}", title_justify="left")
    table.add_column("arm")
    for name in ("parameters", "seeds", "mean", f"{CONFIDENCE:.0%} interval", "by", "read at"):
        table.add_column(name, justify="right", no_wrap=True)
    digits = 3 if is_accuracy(metric) else 4
    for group in comparison.groups:
        for cell in group:
            found = cell.estimate
            table.add_row(
                escape(cell.condition.label),
                f"{cell.condition.parameters:,}",
                str(found.n_seeds),
                f"{found.mean:.{digits}f}{MARK if comparison.verdict else ''}",
                f"[{found.low:.{digits}f}, {found.high:.{digits}f}]" if found.interval else "-",
                found.interval or "-",
                f"{cell.share_of_run:.0%}",
                end_section=cell is group[-1],
            )
    return table


def as_csv(comparisons: Sequence[Comparison], metric: str) -> str:
    """Return all tables as one CSV; an interval that is not known is empty, `group` counts equal parameter counts."""
    rows: list[dict[str, Any]] = []
    for name, comparison in zip(("source_tokens", "flops", "parameters"), comparisons, strict=True):
        for number, group in enumerate(comparison.groups):
            for cell in group:
                found = cell.estimate
                row = {
                    "table": name,
                    "budget": comparison.budget,
                    "at": comparison.at,
                    "group": number,
                    "arm": cell.condition.label,
                    "parameters": cell.condition.parameters,
                    "seeds": found.n_seeds,
                    "metric": metric,
                    "mean": found.mean,
                    "low": found.low if found.interval else None,
                    "high": found.high if found.interval else None,
                    "interval": found.interval,
                    "read_at": cell.share_of_run,
                    "verdict": comparison.verdict,
                }
                rows.append(row)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def draw(groups: Sequence[Condition], metric: str, at: float, path: Path) -> None:
    """Write a PNG: the metric against source tokens, a line an arm (mean over seeds), a band from seed to seed."""
    from matplotlib.figure import Figure

    from lightning_metatok.palette import line_style
    from lightning_metatok.report.figures import draw_curve, finish_curves

    figure = Figure(figsize=(8.4, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for i, condition in enumerate(groups):
        n = len(condition.runs)
        line = draw_curve(axes, condition, metric, *line_style(i))
        line.set_label(f"{condition.label} ({n} seed{'s' if n > 1 else ''})")
    axes.axvline(at, color="0.5", linestyle=":", linewidth=1, label="where all are compared")
    finish_curves(axes, metric)
    axes.set_xlabel("source tokens seen")
    axes.set_ylabel(metric)
    axes.set_title(f"{metric} by arm: mean over seeds, band from the smallest to the largest", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    figure.savefig(path, format="png")
