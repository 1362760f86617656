"""Conditions side by side at the same cost: a metric read off every run at the largest budget that all runs reached.

    metric |        ____ meta      Every run is read where the shortest one ends, on the straight line between the
           |     __/   :           two logged points around it: the longer ones are not credited for going on.
           |  __/ ___..:.. plain
           +-----------:-------    source tokens, or FLOPs
                     budget

A value is a mean over seeds, with Student's interval for that mean. Of one seed alone, or of seeds that agree to the
last digit (no spread is no proof of certainty), an accuracy has Wilson's interval over the prompts of one run, and
another metric none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_metatok.analysis.statistics import wilson_interval
from lightning_metatok.errors import UserError
from lightning_metatok.report.runs import Condition, Run

CONFIDENCE = 0.95
INFORMATIVE = (0.2, 0.95)
"""Accuracies of the plain arm between which a comparison says something: below, the task may be out of reach for all;
above, there is nothing left to gain."""


@dataclass(frozen=True)
class Estimate:
    """A mean over `n_seeds` runs and its interval. `interval`: t, wilson, or empty; then `low` and `high` are NaN."""

    mean: float
    low: float
    high: float
    n_seeds: int
    interval: str


@dataclass(frozen=True)
class Cell:
    """A condition at a budget. `share_of_run`: where its runs were read, 1 being their end (mean over seeds)."""

    condition: Condition
    estimate: Estimate
    share_of_run: float


def is_accuracy(metric: str) -> bool:
    """Whether a metric is a share of answers that are right, 0 to 1."""
    return metric.startswith(("accuracy/", "answers/"))


def n_prompts(run: Run, metric: str) -> int | None:
    """Return how many prompts an accuracy was measured on, None where the run does not say.

    Tokens of one answer are not independent, so that an accuracy of tokens has as many items as there are prompts.
    """
    name, _, split = metric.rpartition("/")
    n = run.config.get({"val": "data.validation_examples", "test": "data.test_examples"}.get(split, ""))
    return int(n) if name.startswith("accuracy/") and n else None


def largest_common_budget(runs: Sequence[Run], metric: str, budget: str) -> float:
    """Return the largest budget at which `metric` is known of every run; `budget` is a key of `runs.BUDGETS`.

    Raises:
        UserError: a run did not log the metric, or one began to log it only after another had ended.
    """
    spans = [(run, *run.curve(metric, budget)[0][[0, -1]]) for run in runs]
    ends, begins = min(spans, key=lambda span: span[2]), max(spans, key=lambda span: span[1])
    if begins[1] > ends[2]:
        name = budget.replace("_", " ").replace("flops", "FLOPs")
        raise UserError(
            f"--metric={metric}: {begins[0].folder} logged it first at {begins[1]:.4g} {name}, where "
            f"{ends[0].folder} had ended ({ends[2]:.4g}); expected runs with a budget in common"
        )
    return float(ends[2])


def estimate(values_n: ArrayLike, *, n_items: int | None = None, share: bool = False) -> Estimate:
    """Return the mean of one value a seed, with its interval.

    Args:
        values_n: one number a seed.
        n_items: items behind each value, for a share of items that are right; used where seeds have no spread.
        share: values lie between 0 and 1, and so does the interval.
    """
    values_n = np.asarray(values_n, dtype=np.float64)
    n, mean = len(values_n), float(values_n.mean())
    if n >= 2 and np.ptp(values_n) > 0:
        from scipy import stats  # most of a second, which a verb's --help does not need

        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * values_n.std(ddof=1) / math.sqrt(n))
        low, high = mean - half, mean + half
        return Estimate(mean, max(low, 0.0), min(high, 1.0), n, "t") if share else Estimate(mean, low, high, n, "t")
    if share and n_items:
        low_, high_ = wilson_interval(round(mean * n_items), n_items, CONFIDENCE)
        return Estimate(mean, float(low_), float(high_), n, "wilson")
    return Estimate(mean, math.nan, math.nan, n, "")


def cells(conditions: Sequence[Condition], metric: str, budget: str, at: float) -> list[Cell]:
    """Return one cell a condition: `metric` when `at` of `budget` was spent, which every run must have reached."""
    found = []
    for condition in conditions:
        curves = [run.curve(metric, budget) for run in condition.runs]
        values = [float(np.interp(at, *curve)) for curve in curves]
        n_items = n_prompts(condition.runs[0], metric)
        found.append(
            Cell(
                condition,
                estimate(values, n_items=n_items, share=is_accuracy(metric)),
                float(np.mean([at / spent[-1] for spent, _ in curves])),
            )
        )
    return found


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


def band(condition: Condition, metric: str, budget: str, points: int = 200) -> NDArray[np.float64]:
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
