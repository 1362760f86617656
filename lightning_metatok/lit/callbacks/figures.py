"""The picture of a run at a glance, run.png; colour-blind-safe, legible at half a page."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_metatok.lit.callbacks.offers import Panel
from lightning_metatok.palette import BLUE, GREY, SKY


def run_figure(metrics: list[dict[str, Any]], panels: Sequence[Panel] = ()) -> Figure:
    """A run at a glance: losses over source tokens, and what callbacks offer beside them.

    Args:
        metrics: Lines of metrics.jsonl.
        panels: Drawn from left to right.
    """
    figure = Figure(figsize=(5.2 + 4.4 * len(panels), 3.6), dpi=150, layout="constrained")
    first, *others = figure.subplots(1, 1 + len(panels), squeeze=False)[0]
    _draw_losses(first, metrics)
    for axes, draw in zip(others, panels, strict=True):
        draw(axes)
    return figure


def _draw_losses(axes: Axes, metrics: list[dict[str, Any]]) -> None:
    bigram = next((line["loss/bigram"] for line in reversed(metrics) if "loss/bigram" in line), None)
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
    finish(axes)


def finish(axes: Axes) -> None:
    """What all panels of losses share: the unit, open corners, a legend."""
    axes.set_ylabel("loss (nats per source token)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
