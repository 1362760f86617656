"""Figures that callbacks draw; colour-blind-safe, legible at half a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from lightning_metatok.lit.callbacks.position_ablation import Cell

# Okabe and Ito's palette: distinguishable with any colour vision.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#6E6E6E"


def ablation_figure(cells: list[Cell], trained_length: int, bigram_nats: float | None = None) -> Figure:
    """Loss per source token against context length, positions kept and dropped at meta slots."""
    figure = Figure(figsize=(5.2, 3.4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for positions, colour, marker in (("kept", BLUE, "o"), ("dropped", ORANGE, "s")):
        rows = [cell for cell in cells if cell.positions == positions]
        if rows:
            axes.plot(
                [cell.length for cell in rows],
                [cell.nats for cell in rows],
                color=colour,
                marker=marker,
                label=f"positions {positions} at meta-tokens",
            )
    if bigram_nats is not None:
        axes.axhline(bigram_nats, color=GREY, linestyle=":", label="bigram model")
    axes.axvline(trained_length, color=GREY, linewidth=0.8, linestyle="--")
    axes.annotate("trained length", (trained_length, 1), xycoords=("data", "axes fraction"), fontsize=8, color=GREY,
                  xytext=(4, -10), textcoords="offset points")  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted({cell.length for cell in cells}), [str(n) for n in sorted({cell.length for cell in cells})])
    axes.minorticks_off()
    axes.set_xlabel("context length (tokens)")
    axes.set_ylabel("loss (nats per source token)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, replacing an older one in a single move."""
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png")
    temporary.replace(path)
