"""Conditions side by side where their runs ENDED: a learning-rate schedule that is read in its middle decides nothing.

metric |        ____ meta      Every run counts at its own last value. What ended at another budget stands in the
       |     __/               table and is said, but is not compared.
       |  __/ ___... plain
       +-----------------      source tokens, or FLOPs
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.report.estimates import Estimate, Values, estimate, is_accuracy, is_exact
from lightning_metatok.report.runs import BUDGETS, Condition, Run, seed_keys

INFORMATIVE = (0.2, 0.95)
"""Accuracies of the plain arm between which a comparison says something: below, the task may be out of reach for all;
above, there is nothing left to gain."""
EQUAL = 0.01
"""Budgets that differ by no more than this share count as equal."""
UNITS = {"source_tokens": "source tokens", "flops": "training FLOPs"}


@dataclass(frozen=True)
class Cell:
    """A condition at its end. `values`: by seed; `ended_at`: the smallest and the largest budget of its runs."""

    condition: Condition
    values: Values
    estimate: Estimate
    ended_at: tuple[float, float]


def n_prompts(run: Run, metric: str) -> int | None:
    """Return how many prompts an accuracy was measured on, None where the run does not say.

    Tokens of one answer are not independent, so that an accuracy of tokens has as many items as there are prompts.
    """
    name, _, split = metric.rpartition("/")
    n = run.config.get({"val": "data.validation_examples", "test": "data.test_examples"}.get(split, ""))
    return int(n) if name.startswith("accuracy/") and n else None


def cells(
    conditions: Sequence[Condition],
    metric: str,
    budget: str,
    solved: float,
) -> list[Cell]:
    """Return one cell a condition.

    Args:
        budget: a key of `runs.BUDGETS`. solved: accuracy from which on a run has solved its task.

    Raises:
        UserError: a run did not log the metric, or not what it spent.
    """
    found = []
    for condition in conditions:
        curves = [run.curve(metric, budget) for run in condition.runs]
        spent = [float(at[-1]) for at, _ in curves]
        values = {key: float(value[-1]) for key, (_, value) in zip(seed_keys(condition.runs), curves, strict=True)}
        summed = estimate(
            list(values.values()),
            share=is_accuracy(metric),
            n_items=n_prompts(condition.runs[0], metric),
            solved=solved if is_exact(metric) else 0.0,
        )
        found.append(Cell(condition, values, summed, (min(spent), max(spent))))
    return found


def ended_together(*table: Cell) -> bool:
    """Whether all runs of some cells ended at the same budget."""
    low, high = min(cell.ended_at[0] for cell in table), max(cell.ended_at[1] for cell in table)
    return high - low <= EQUAL * high


def ended(cell: Cell, budget: str) -> str:
    """Where a cell's runs ended, as text: ``2,000``, or ``1,000 to 2,000``."""
    low, high = (f"{at:,.0f}" if budget == "source_tokens" else f"{at:.3g}" for at in cell.ended_at)
    return high if low == high or ended_together(cell) else f"{low} to {high}"


def unfinished(run: Run) -> tuple[int, int] | None:
    """Return (last step, end of the learning-rate schedule) where the first is smaller, or None.

    A run that stopped while its learning rate was high would have gone on to improve.
    """
    end, lowest, highest = (run.config.get(f"model.optimizer.{key}") for key in ("decay_steps", "min_lr", "lr"))
    if lowest is not None and lowest == highest:  # nothing decays
        return None
    last = max((int(line["step"]) for line in run.lines), default=0)
    planned = run.config.get("trainer.max_steps")
    if isinstance(planned, int) and planned > 0:
        last = min(last, planned)
    return (last, end) if isinstance(end, int) and last < end else None


def schedule_note(conditions: Sequence[Condition]) -> str:
    """Return a sentence on runs that ended before their learning-rate schedule; empty where there are none."""
    parts = []
    for condition in conditions:
        found = [one for run in condition.runs if (one := unfinished(run)) is not None]
        if found:
            last, end = min(found)
            n = len(condition.runs)
            some = f", {len(found)} of {n} runs" if len(found) < n else ""
            parts.append(f"{condition.label} (step {last:,} of {end:,}{some})")
    return f"the learning-rate schedule had not ended: {'; '.join(parts)}" if parts else ""


def scale(conditions: Sequence[Condition]) -> str:
    """Return what was trained, as text: parameters, source tokens, seeds."""
    runs = [run for condition in conditions for run in condition.runs]
    tokens = [at for run in runs if (at := run.last(BUDGETS["source_tokens"])) == at]
    parts = [f"{_span([c.parameters for c in conditions])} parameters"]
    if tokens:
        parts.append(f"{_span(tokens)} source tokens")
    counts = [len(condition.runs) for condition in conditions]
    parts.append(f"{_span(counts)} seed{'s' if max(counts) > 1 else ''}{' each' if len(conditions) > 1 else ''}")
    return ", ".join(parts)


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{high:,.0f}" if high - low <= EQUAL * high else f"{low:,.0f} to {high:,.0f}"


def verdict(table: Sequence[Cell], metric: str) -> str:
    """Say why the cells of a table decide nothing.

    Empty where they may decide something, where there is no plain arm, and where the metric is no accuracy.
    """
    plain = [cell.estimate.mean for cell in table if cell.condition.is_plain]
    low, high = INFORMATIVE
    if not is_accuracy(metric) or not plain or any(low <= value <= high for value in plain):
        return ""
    shown = ", ".join(f"{value:.3f}" for value in plain)
    return f"uninformative: the plain arm is at {shown}, not between {low} and {high}"


def same_parameters(conditions: Sequence[Condition]) -> tuple[list[list[Condition]], list[Condition]]:
    """Return groups of conditions with equally many parameters, smallest models first; and those without a partner."""
    counts = sorted({condition.parameters for condition in conditions})
    groups = [[condition for condition in conditions if condition.parameters == count] for count in counts]
    return [group for group in groups if len(group) > 1], [group[0] for group in groups if len(group) == 1]


def band(
    condition: Condition,
    metric: str,
    budget: str,
    points: int = 200,
) -> NDArray[np.float64]:
    """Return the condition's curve over its seeds, [4, points]: budget, mean, smallest and largest value.

    It covers what all seeds of the condition have; its points are those that one of them logged, or evenly spread
    where there would be more than `points`.
    """
    curves = [run.curve(metric, budget) for run in condition.runs]
    start, end = max(spent[0] for spent, _ in curves), min(spent[-1] for spent, _ in curves)
    logged = np.unique(np.concatenate([spent for spent, _ in curves]))
    grid = logged[(logged >= start) & (logged <= end)]
    if len(grid) > points:
        grid = np.linspace(start, end, points)
    values = np.stack([np.interp(grid, *curve) for curve in curves])
    return np.stack([grid, values.mean(axis=0), values.min(axis=0), values.max(axis=0)])
