"""`compare`: arms side by side where their runs ended, at equal source tokens, equal FLOPs and equal parameters.

    lightning-metatok compare runs/plain-* runs/meta-* --figure arms.png
    lightning-metatok compare runs/plain-* runs/pause-* runs/meta-* --against pause

Runs that differ in nothing but their seed make one row. Every run counts at its end; arms that ended at budgets more
than 1 % apart stand in a table and are not compared there. Fewer than five seeds have no interval and no p.
"""

from collections.abc import Sequence
from pathlib import Path

from lightning_metatok.cli.output_file import check_output, writing
from lightning_metatok.cli.studies import add_solved, check_solved
from lightning_metatok.console import printer
from lightning_metatok.errors import OptionParser, UserError, nearest
from lightning_metatok.report.comparison import Comparison, as_csv, as_tables, compare, solving_comparison
from lightning_metatok.report.estimates import is_exact
from lightning_metatok.report.runs import Condition, Run, conditions, read_run
from lightning_metatok.report.scored_text import check_text

DEFAULT_METRICS = ("accuracy/exact/val", "loss/val")


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok compare", description=__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", type=Path, help="run folders that `fit` wrote")
    parser.add_argument(
        "--metric", help=f"a name in metrics.jsonl ({DEFAULT_METRICS[0]}; for text {DEFAULT_METRICS[1]})"
    )
    parser.add_argument(
        "--against", metavar="ARM", help="the arm that the others are measured against (the plain one, else the first)"
    )
    add_solved(parser)
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
    check_solved(arguments.solved)

    runs = [read_run(folder) for folder in arguments.runs]
    metric = choose_metric(runs, arguments.metric)
    groups = conditions(runs)
    check_text(runs)
    against = choose_base(groups, arguments.against)
    comparisons = compare(groups, metric, arguments.solved, against)
    console = printer()
    for comparison in comparisons:
        for table in as_tables(comparison, metric):
            console.print(table)
        if not comparison.groups:
            console.print(f"{metric} {comparison.title}", style="italic", highlight=False)
        for note in comparison.notes:
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        console.print()
    if is_exact(metric):
        console.print(solving_comparison(groups, metric, arguments.solved, against))
        console.print()
    if arguments.csv is not None:
        with writing("--csv", arguments.csv):
            arguments.csv.write_text(as_csv(comparisons, metric), encoding="utf-8")
    if arguments.figure is not None:
        with writing("--figure", arguments.figure):
            draw(groups, metric, comparisons[0], arguments.solved, arguments.figure)
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


def choose_base(groups: Sequence[Condition], wanted: str | None) -> Condition | None:
    """Return the condition that the others are measured against; None where none is wanted.

    Raises:
        UserError: no row is called that.
    """
    if wanted is None:
        return None
    named = {condition.label: condition for condition in groups}
    if wanted not in named:
        raise UserError(f"--against={wanted}: expected an arm of these runs{nearest(wanted, list(named))}")
    return named[wanted]


def draw(
    groups: Sequence[Condition],
    metric: str,
    ends: Comparison,
    solved: float,
    path: Path,
) -> None:
    """Write a PNG: the metric against source tokens, a line an arm (mean over seeds), a band from seed to seed.

    Exact answers have a second chart: the share of runs that have not reached `solved` yet, by step.
    """
    import textwrap

    from matplotlib.figure import Figure

    from lightning_metatok.palette import line_style
    from lightning_metatok.pictures import as_png
    from lightning_metatok.report.budgets import scale
    from lightning_metatok.report.figures import draw_curve, finish_curves
    from lightning_metatok.report.solving import draw_unsolved, solvings

    charts = 2 if is_exact(metric) else 1
    figure = Figure(figsize=(8.4, 4.4 * charts), dpi=150, layout="constrained")
    axes, *more = figure.subplots(charts, squeeze=False)[:, 0]
    for i, condition in enumerate(groups):
        n = len(condition.runs)
        line = draw_curve(axes, condition, metric, *line_style(i))
        line.set_label(f"{condition.label} ({n} seed{'s' if n > 1 else ''})")
    finish_curves(axes, metric)
    axes.set_xlabel("source tokens seen")
    axes.set_ylabel(metric)
    title = f"{ends.finding or metric} ({scale(groups)})"
    axes.set_title(f"{textwrap.fill(title, 90)}\nmean over seeds, band from the smallest to the largest", fontsize=9)
    for chart in more:
        for i, (_, one) in enumerate(solvings(groups, metric, solved).items()):
            draw_unsolved(chart, one, color=line_style(i)[0])
        chart.set_ylim(-0.03, 1.03)
        chart.set_xlim(left=0)
        chart.set_xlabel("training step")
        chart.set_ylabel(f"runs without {solved:g} yet")
        chart.set_title("Kaplan-Meier; a tick: a run that ended without", fontsize=9)
    for chart in (axes, *more):
        chart.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    path.write_bytes(as_png(figure))
