"""Figures of a study: conditions by length, differences with their intervals, learning curves.

Where there are several axes or many conditions, the panels are small and share their axes: one panel a combination of
the other axes, and in each the conditions that are compared.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullLocator

from lightning_metatok.palette import BLUE, GREY, ORANGE, line_style
from lightning_metatok.pictures import as_png
from lightning_metatok.report.budgets import band
from lightning_metatok.report.contrasts import Contrast, contrast_axis, within
from lightning_metatok.report.estimates import CONFIDENCE, Difference, Estimate, is_accuracy
from lightning_metatok.report.lengths import Question
from lightning_metatok.report.runs import Condition
from lightning_metatok.report.solving import Solving, draw_unsolved
from lightning_metatok.report.study import Study, label

MOST_LINES = 7
"""In one panel; with more, every condition has its own."""
COLUMNS = 4
DPI = 130

Means = Mapping[tuple[Condition, str, float | None], Estimate]


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG file."""
    figure.set_dpi(DPI)
    return as_png(figure)


def panels(study: Study) -> list[tuple[str, list[Condition]]]:
    """Return what stands in one panel together, with the panel's title."""
    axis = contrast_axis(study)
    if axis is not None:
        return [
            (label({key: value for key, value in group[0].axes.items() if key != axis}), group)
            for group in within(study, axis)
        ]
    if len(study.conditions) <= MOST_LINES:
        return [("", list(study.conditions))]
    return [(condition.label, [condition]) for condition in study.conditions]


def lengths_figure(study: Study, question: Question) -> Figure:
    """Every condition against length: the mean over seeds, a band from the smallest seed to the largest."""
    groups, read = panels(study), list(question.names)
    both = len(read) > 1
    if both and len(groups) == 1 and len(groups[0][1]) > 2:
        groups = [(condition.label, [condition]) for condition in study.conditions]
    figure, grid = _grid(len(groups))
    styles, one_each = _styles(study, groups), all(len(group) == 1 for _, group in groups)
    drawn: dict[str, Any] = {}
    for axes, (title, group) in zip(grid, groups, strict=True):
        for condition in group:
            for reading in read:
                at = [m for m in question.multiples if np.isfinite(_values(condition, question, reading, m)).any()]
                if not at:
                    continue
                as_trained = reading == question.as_trained(condition)
                colour, marker = styles[condition]
                if both and one_each:
                    colour, marker = line_style(read.index(reading))
                name = _name(study, condition, groups, reading if both else "")
                line = _band(axes, at, [_values(condition, question, reading, m) for m in at], colour)
                line.set(
                    marker=marker, linestyle="-" if as_trained else "--", fillstyle="full" if as_trained else "none"
                )
                drawn.setdefault(name, line)
        axes.set_xscale("log", base=2)
        axes.set_xticks(question.multiples, [f"{m:g}×" for m in question.multiples], fontsize=8)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(title, fontsize=9)
    if question.share:
        grid[0].set_ylim(-0.03, 1.03)
    else:
        _focus(grid[0], study, question)
    for axes in _lowest(grid):
        axes.set_xlabel(length_name(study, question), fontsize=8)
    figure.supylabel(question.quantity, fontsize=9)
    way = f"positions at meta-tokens {question.read}, by context length"
    heading = way if both else f"{question.quantity} by length"
    _legend(figure, drawn, f"{heading}\nmean over seeds, band from the smallest to the largest")
    return figure


def length_name(study: Study, question: Question) -> str:
    """What lengths are counted in."""
    block = study.runs[0].config.get("data.block_size")
    if question.share or not isinstance(block, int):
        return "prompt length (× trained)"
    return f"context length (× {block} tokens)"


def dots_figure(study: Study, question: Question, means: Means) -> Figure:
    """One number a condition, with its interval where it has one; every seed as a small dot."""
    reading = next(iter(question.names))
    rows = [(c, means[c, reading, None]) for c in study.conditions if (c, reading, None) in means]
    figure = Figure(figsize=(7.2, 1.2 + 0.28 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for y, (condition, found) in enumerate(rows):
        seeds = _values(condition, question, reading, None)
        axes.plot(seeds, [y] * len(seeds), "o", color=GREY, markersize=3, alpha=0.7)
        _interval(axes, found, y, BLUE)
    _rows(axes, [condition.label for condition, _ in rows])
    axes.set_xlabel(question.quantity)
    has = any(found.interval for _, found in rows)
    interval = f" and {CONFIDENCE:.0%} interval" if has else ""
    axes.set_title(f"{question.quantity}: mean{interval}, seeds in grey", fontsize=9)
    return figure


def contrasts_figure(contrasts: Sequence[Contrast], question: Question, names: Sequence[str]) -> Figure:
    """Differences with their intervals, a panel a length; what holds after Holm's correction is filled.

    Args:
        names: what each contrast is of; those of the same name stand in one row.
    """
    at = list(dict.fromkeys(contrast.at for contrast in contrasts))
    labels = list(dict.fromkeys(names))
    figure = Figure(figsize=(max(6.5, 2.2 + 1.9 * len(at)), 1.5 + 0.26 * len(labels)), layout="constrained")
    grid = figure.subplots(1, len(at), squeeze=False, sharey=True)[0]
    for axes, place in zip(grid, at, strict=True):
        axes.axvline(0, color="0.4", linewidth=1)
        for name, contrast in zip(names, contrasts, strict=True):
            if contrast.at == place:
                good = (
                    question.higher_is_better is not None
                    and (contrast.difference.mean > 0) == question.higher_is_better
                )
                colour = BLUE if good else ORANGE
                _interval(axes, contrast.difference, labels.index(name), colour, filled=contrast.is_sure)
        _rows(axes, labels)
        axes.tick_params(axis="x", labelsize=8)
        if place is not None:
            axes.set_title(f"{place:g}×", fontsize=9)
    figure.supxlabel(f"difference in {question.quantity}", fontsize=9)
    kinds = "" if question.higher_is_better is None else ": blue better, orange worse"
    figure.suptitle(
        f"differences and {CONFIDENCE:.0%} intervals{kinds}; filled: holds after Holm's correction", fontsize=9
    )
    return figure


def curves_figure(study: Study, metric: str, title: str = "") -> Figure | None:
    """Return learning curves against source tokens, all conditions in one chart where a chart can hold them.

    Args:
        title: what was found, which stands above the chart. None is returned where no condition has a curve.
    """
    together = [("", list(study.conditions))] if len(study.conditions) <= MOST_LINES else panels(study)
    groups = [(name, [c for c in group if all(metric in run.metrics for run in c.runs)]) for name, group in together]
    groups = [(name, group) for name, group in groups if group]
    if not groups:
        return None
    figure, grid = _grid(len(groups))
    one = len(groups) == 1
    styles = {c: line_style(i) for i, c in enumerate(study.conditions)} if one else _styles(study, groups)
    drawn: dict[str, Any] = {}
    for axes, (name, group) in zip(grid, groups, strict=True):
        for condition in group:
            line = draw_curve(axes, condition, metric, *styles[condition])
            drawn.setdefault(condition.label if one else _name(study, condition, groups, ""), line)
        axes.set_title(name, fontsize=9)
    finish_curves(grid[0], metric)
    for axes in _lowest(grid):
        axes.set_xlabel("source tokens seen", fontsize=8)
    figure.supylabel(metric, fontsize=9)
    width = int(figure.get_figwidth() * 14)
    said = textwrap.fill(title, width) or f"{metric} while learning"
    _legend(figure, drawn, f"{said}\nmean over seeds, band from the smallest to the largest")
    return figure


def solving_figure(found: Mapping[Condition, Solving], accuracy: float) -> Figure:
    """Kaplan-Meier curves, a line a condition."""
    figure, (axes,) = _grid(1)
    lines = {}
    for number, (condition, one) in enumerate(found.items()):
        colour, _ = line_style(number)
        lines[condition.label] = draw_unsolved(axes, one, color=colour)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlim(left=0)
    axes.set_xlabel("training step", fontsize=9)
    axes.set_ylabel(f"runs without {accuracy:g} of exact answers yet", fontsize=9)
    _legend(figure, lines, f"runs that have not reached {accuracy:g}; a tick: a run that ended without")
    return figure


def draw_curve(
    axes: Axes,
    condition: Condition,
    metric: str,
    colour: str,
    marker: str,
) -> Any:
    """Draw one condition's curve and return its line."""
    spent, mean, low, high = band(condition, metric, "source_tokens")
    (line,) = axes.plot(spent, mean, color=colour, marker=marker, markersize=4)
    if len(spent) == 1:  # logged at the end alone: a point and its range
        axes.vlines(spent, low, high, color=colour)
        return line
    line.set_markevery(0.1)
    if len(condition.runs) > 1:
        axes.fill_between(spent, low, high, color=colour, alpha=0.2, linewidth=0)
    return line


def finish_curves(axes: Axes, metric: str) -> None:
    """Set scales that are fit for curves."""
    if is_accuracy(metric):
        axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _grid(n: int) -> tuple[Figure, list[Axes]]:
    """A figure with `n` panels that share their axes."""
    columns = min(COLUMNS, n)
    rows = math.ceil(n / columns)
    width, height = (6.4, 4.2) if n == 1 else (max(6.0, 0.6 + 2.4 * columns), 1.2 + 2.0 * rows)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    for number, axes in enumerate(grid):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.92")
        axes.tick_params(labelsize=8)
        axes.set_visible(number < n)
        if number + columns >= n:  # the last one of its column
            axes.tick_params(labelbottom=True)
    return figure, grid[:n]


def _lowest(grid: Sequence[Axes]) -> list[Axes]:
    """The last panel of every column."""
    return list(grid[-min(COLUMNS, len(grid)) :])


def _styles(study: Study, groups: Sequence[tuple[str, list[Condition]]]) -> dict[Condition, tuple[str, str]]:
    """Colour and marker of a condition: of the value that is compared, the same in all panels."""
    axis = contrast_axis(study)
    if axis is None:
        alone = len(groups) == len(study.conditions)
        return {c: line_style(0 if alone else i) for i, c in enumerate(study.conditions)}
    values = list(dict.fromkeys(str(condition.axes[axis]) for condition in study.conditions))
    return {c: line_style(values.index(str(c.axes[axis]))) for c in study.conditions}


def _name(study: Study, condition: Condition, groups: Sequence[tuple[str, list[Condition]]], reading: str) -> str:
    """What the legend calls a line."""
    axis = contrast_axis(study)
    one_each = all(len(group) == 1 for _, group in groups) and len(groups) > 1
    arm = "" if one_each else label({axis: condition.axes[axis]}) if axis else condition.label
    return f"trained: {arm}; read: {reading}" if arm and reading else arm or reading


def _values(condition: Condition, question: Question, reading: str, at: float | None) -> np.ndarray:
    return np.array([question.value(run, reading, at) for run in condition.runs])


def _band(axes: Axes, at: Sequence[float], values: Sequence[np.ndarray], colour: str) -> Any:
    """A line through the means, a band over the seeds."""
    mean, low, high = ([f(v) for v in values] for f in (np.nanmean, np.nanmin, np.nanmax))
    axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
    (line,) = axes.plot(at, mean, color=colour, markersize=5)
    return line


def _interval(axes: Axes, found: Estimate | Difference, y: float, colour: str, *, filled: bool = True) -> None:
    if math.isfinite(found.low):
        axes.plot([found.low, found.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
    face = colour if filled else "white"
    axes.plot([found.mean], [y], "o", color=colour, markerfacecolor=face, markersize=5, zorder=3)


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(axis="y", color="0.92")
    axes.spines[["top", "right"]].set_visible(False)


def _focus(axes: Axes, study: Study, question: Question) -> None:
    """Show all values of models read as they were trained; what is far worse leaves the panel at the top."""
    usual = np.concatenate(
        [_values(c, question, question.as_trained(c), m) for c in study.conditions for m in question.multiples]
    )
    low, high = float(np.nanmin(usual)), float(np.nanmax(usual))
    bottom, top = axes.get_ylim()
    room = max(0.1, 1.0 * (high - low))
    axes.set_ylim(max(bottom, low - room), min(top, high + room))


def _legend(figure: Figure, drawn: Mapping[str, Any], title: str) -> None:
    figure.suptitle(title, fontsize=9)
    named = {name: line for name, line in drawn.items() if name}
    if len(named) > 1:
        columns = 2 if max(map(len, named)) > 16 else 4
        figure.legend(
            named.values(), named.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=8
        )
