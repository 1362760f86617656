"""Figures that callbacks draw; colour-blind-safe, legible at half a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_metatok.palette import BLUE, GREY, ORANGE, SKY

if TYPE_CHECKING:
    from lightning_metatok.lit.ablations.position_ablation import Cell

SMALLEST_RANGE = 0.1
"""Nats: the ablation's axis never spans less."""


def run_figure(metrics: list[dict[str, Any]], cells: list[Cell]) -> Figure:
    """A run at a glance: losses over source tokens, and the ablation across context lengths.

    Args:
        metrics: Lines of metrics.jsonl.
        cells: Of the last position ablation; without any, the right panel is left out.
    """
    figure = Figure(figsize=(9.6 if cells else 5.2, 3.6), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2 if cells else 1, squeeze=False)[0]
    bigram = next((line["loss/bigram"] for line in reversed(metrics) if "loss/bigram" in line), None)
    _draw_losses(panels[0], metrics, bigram)
    if cells:
        _draw_ablation(panels[1], cells)
    return figure


def ablation_figure(cells: list[Cell]) -> Figure:
    """Loss per source token against context length, positions kept and dropped at meta slots."""
    figure = Figure(figsize=(5.2, 3.6), dpi=150, layout="constrained")
    _draw_ablation(figure.add_subplot(), cells)
    return figure


def _draw_losses(axes: Axes, metrics: list[dict[str, Any]], bigram: float | None) -> None:
    for tag, colour, label in (("loss/train", SKY, "training batch"), ("loss/val", BLUE, "validation")):
        points = [(line["step"], line[tag]) for line in metrics if tag in line]
        if points:
            marker = "o" if tag == "loss/val" else None
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=label)
    if bigram is not None:
        axes.axhline(bigram, color=GREY, linestyle=":", label="bigram model of the same tokens")
    last = next((line["loss/val"] for line in reversed(metrics) if "loss/val" in line), None)
    title = "validation loss" if last is None else f"validation loss reaches {last:.2f} nats"
    axes.set_title(title if bigram is None else f"{title} (bigram: {bigram:.2f})", fontsize=10)
    axes.set_xlabel("optimiser step")
    _finish(axes)


def _draw_ablation(axes: Axes, cells: list[Cell]) -> None:
    for positions, colour, marker in (("kept", BLUE, "o"), ("dropped", ORANGE, "s")):
        rows = [cell for cell in cells if cell.positions == positions]
        if rows:
            lengths, losses = [cell.length for cell in rows], [cell.nats for cell in rows]
            label = f"positions {positions} at meta-tokens"
            axes.plot(lengths, losses, color=colour, marker=marker, fillstyle="none", markersize=8, label=label)
    low, high = axes.get_ylim()
    if high - low < SMALLEST_RANGE:  # else noise would fill the panel
        middle = (low + high) / 2
        axes.set_ylim(middle - SMALLEST_RANGE / 2, middle + SMALLEST_RANGE / 2)
    trained = next((cell.length for cell in cells if cell.multiple == 1), None)
    lengths = sorted({cell.length for cell in cells})
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{n}\n(trained)" if n == trained else str(n) for n in lengths])
    axes.minorticks_off()
    axes.set_title("positions at meta-tokens, by context length", fontsize=10)
    axes.set_xlabel("context length (tokens)")
    _finish(axes)


def _finish(axes: Axes) -> None:
    axes.set_ylabel("loss (nats per source token)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, replacing an older one in a single move."""
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png")
    temporary.replace(path)
