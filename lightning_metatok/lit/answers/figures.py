"""Figures of answers: accuracy by length, by place of the answer, and what was said instead."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_metatok.data.examples import Examples
from lightning_metatok.lit.answers.ask import Answers
from lightning_metatok.lit.answers.report import ERRORS, AnswerCell, groups
from lightning_metatok.palette import BLUE, GREEN, GREY, ORANGE, PINK, SKY, YELLOW

CURVES = ((ORANGE, "s"), (GREEN, "^"), (PINK, "D"), (YELLOW, "v"), (SKY, "P"), (GREY, "X"))
BARS = (BLUE, SKY, YELLOW, GREY)
TITLES = {"positions": "positions at marks", "embedding": "embedding of marks", "marks": "places of marks"}

PLACES = 8
"""Columns of the map of places."""
FEWEST = 10
"""Prompts in a field of the map; with fewer it stays white."""
MOST_PANELS = 5


def length_figure(cells: Sequence[AnswerCell]) -> Figure:
    """Exact answers against length with Wilson's intervals: one panel a kind of ablation, the undisturbed in each."""
    full = [cell for cell in cells if cell.kind == "as trained"]
    kinds = list(dict.fromkeys(cell.kind for cell in cells if cell.kind != "as trained"))
    figure = Figure(figsize=(0.8 + 3.6 * max(len(kinds), 1.2), 3.6), dpi=150, layout="constrained")
    panels = figure.subplots(1, max(len(kinds), 1), squeeze=False, sharey=True)[0]
    length_of = {cell.multiple: cell.tokens for cell in full}
    for axes, kind in zip(panels, kinds or [""], strict=True):
        _draw_curve(axes, full, length_of, BLUE, "o")
        rows = [cell for cell in cells if cell.kind == kind]
        for condition, (colour, marker) in zip(dict.fromkeys(c.condition for c in rows), CURVES, strict=False):
            _draw_curve(axes, [c for c in rows if c.condition == condition], length_of, colour, marker)
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(length_of.values()), [f"{n:.0f}\n{m:g}x" for m, n in length_of.items()], fontsize=7)
        axes.minorticks_off()
        axes.set_ylim(-0.03, 1.03)
        axes.set_title(TITLES.get(kind, "answers by length"), fontsize=10)
        axes.set_xlabel("mean length of a prompt (tokens; times the trained one)", fontsize=8)
        axes.grid(axis="y", color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=7)
    panels[0].set_ylabel("exact answers")
    return figure


def _draw_curve(
    axes: Axes, cells: Sequence[AnswerCell], length_of: dict[float, float], colour: str, marker: str
) -> None:
    if not cells:
        return
    x = [length_of[cell.multiple] for cell in cells]  # of the undisturbed, so that points stand above each other
    axes.fill_between(x, [c.low for c in cells], [c.high for c in cells], color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, [c.exact for c in cells], color=colour, marker=marker, fillstyle="none", label=cells[0].label)


def place_figure(asked: dict[float, tuple[Examples, Answers]]) -> Figure | None:
    """Exact answers by where in the prompt the answer stands (x) and by the task's own slice (y), a panel a length.

    Args:
        asked: undisturbed prompts and their answers, by multiple of the trained length.

    Returns:
        None where no prompt says where its answer stands.
    """
    shown = {m: both for m, both in sorted(asked.items())[:MOST_PANELS] if (both[0].slices["position"] >= 0).any()}
    if not shown:
        return None
    name = _own_slice([examples for examples, _ in shown.values()])
    size = (1.2 + 2.6 * len(shown), 3.4)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (multiple, (examples, answers)) in zip(panels, shown.items(), strict=True):
        rows = groups(examples.slices[name]) if name else [np.ones(len(examples), dtype=bool)]
        known = examples.slices["position"] >= 0
        column_n = np.minimum(examples.slices["position"] * PLACES // examples.slices["length"], PLACES - 1)
        accuracy_RC = np.full((len(rows), PLACES), np.nan)
        for row, in_row in enumerate(rows):
            for column in range(PLACES):
                here = in_row & known & (column_n == column)
                if here.sum() >= FEWEST:
                    accuracy_RC[row, column] = answers.exact[here].mean()
        image = axes.imshow(accuracy_RC, vmin=0, vmax=1, cmap="cividis", origin="lower", aspect="auto")
        for (row, column), value in np.ndenumerate(accuracy_RC):
            if np.isfinite(value):
                colour = "white" if value < 0.5 else "black"
                text = f"{value:.2f}".removeprefix("0") if value < 1 else "1"
                axes.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
        labels = [_range(examples.slices[name][in_row]) for in_row in rows] if name else [""]
        axes.set_yticks(range(len(rows)), labels, fontsize=7)
        edges = [0, PLACES // 2, PLACES]
        axes.set_xticks([edge - 0.5 for edge in edges], [f"{100 * edge // PLACES} %" for edge in edges], fontsize=7)
        axes.set_title(f"{multiple:g}x, {examples.lengths.mean():.0f} tokens", fontsize=9)
    panels[0].set_ylabel(name or "")
    figure.supxlabel(f"place of the answer in the prompt (white: fewer than {FEWEST} prompts)", fontsize=9)
    figure.colorbar(image, ax=list(panels), label="exact answers", shrink=0.9, pad=0.01, fraction=0.05)
    return figure


def _own_slice(parts: Sequence[Examples]) -> str | None:
    """The slice that only this task has and that tells most: k where there is one, else of most values."""
    n_values = {
        name: max(len(np.unique(part.slices[name])) for part in parts)
        for name in parts[0].slices
        if name not in ("length", "position", "distance")
    }
    best = "k" if "k" in n_values else max(n_values, key=lambda name: n_values[name], default=None)
    return best if best is not None and n_values[best] > 1 else None


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low}–{high}"


def error_figure(cells: Sequence[AnswerCell]) -> Figure:
    """What was answered: right, or which kind of wrong token first. By length, and by condition at the shortest one."""
    full = [cell for cell in cells if cell.kind == "as trained"]
    shortest = min((cell.multiple for cell in cells if cell.kind != "as trained"), default=None)
    beside = [cell for cell in cells if cell.multiple == shortest] if shortest is not None else []
    figure = Figure(figsize=(9.6 if beside else 5.2, 3.6), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2 if beside else 1, squeeze=False)[0]
    _draw_bars(panels[0], full, [f"{cell.multiple:g}x, {cell.tokens:.0f} tokens" for cell in full])
    panels[0].set_title("undisturbed prompts, by length", fontsize=10)
    if beside:
        _draw_bars(panels[1], beside, [cell.label for cell in beside])
        panels[1].set_title(f"by what happens to the marks, at {shortest:g}x", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4 if beside else 2, frameon=False, fontsize=8)
    return figure


def _draw_bars(axes: Axes, cells: Sequence[AnswerCell], names: Sequence[str]) -> None:
    left = np.zeros(len(cells))
    parts = ("right", *ERRORS)
    shares = np.array([[c.exact, c.in_target, c.in_prompt, c.outside] for c in cells]).T
    for label, share, colour in zip(parts, shares, BARS, strict=True):
        axes.barh(range(len(cells)), share, left=left, color=colour, label=label, height=0.75)
        left = left + share
    axes.set_yticks(range(len(cells)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of prompts")
    axes.spines[["top", "right"]].set_visible(False)
