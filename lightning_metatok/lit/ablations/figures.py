"""How the losses of readings are shown: a figure and a table, of whatever readings there are."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from lightning_metatok.analysis.effective_length import KEPT_SHARE, effective_length
from lightning_metatok.lit.ablations.readings import Reading, ReadingLoss
from lightning_metatok.lit.callbacks.figures import finish
from lightning_metatok.lit.metrics import bytes_per_target

SMALLEST_RANGE = 0.1
"""Nats: the ablation's axis never spans less."""


def readings_figure(readings: Sequence[Reading], losses: Sequence[ReadingLoss]) -> Figure:
    """Loss per source token against context length, a line a reading."""
    figure = Figure(figsize=(5.2, 3.6), dpi=150, layout="constrained")
    draw_readings(figure.add_subplot(), readings, losses)
    return figure


def draw_readings(axes: Axes, readings: Sequence[Reading], losses: Sequence[ReadingLoss]) -> None:
    """The same as a panel."""
    for reading in readings:
        rows = [loss for loss in losses if loss.reading == reading.name]
        if rows:
            axes.plot(
                [row.length for row in rows],
                [row.nats for row in rows],
                color=reading.colour,
                marker=reading.marker,
                fillstyle="none",
                markersize=8,
                label=reading.label,
            )
    low, high = axes.get_ylim()
    if high - low < SMALLEST_RANGE:  # else noise would fill the panel
        middle = (low + high) / 2
        axes.set_ylim(middle - SMALLEST_RANGE / 2, middle + SMALLEST_RANGE / 2)
    trained = next((loss.length for loss in losses if loss.multiple == 1), None)
    lengths = sorted({loss.length for loss in losses})
    axes.set_xscale("log", base=2)
    axes.set_xticks(lengths, [f"{n}\n(trained)" if n == trained else str(n) for n in lengths])
    axes.minorticks_off()
    axes.set_title("positions at meta-tokens, by context length", fontsize=10)
    axes.set_xlabel("context length (tokens)")
    finish(axes)


def readings_table(readings: Sequence[Reading], losses: Sequence[ReadingLoss]) -> Table:
    """One row a context length: the loss in each reading, and each one's difference from the first.

    Its text is other text than that of the validation, so its bits per byte are no measure against those.
    """
    sizes = sorted(bytes_per_target(loss.nats, loss.bits_per_byte) for loss in losses if loss.bits_per_byte is not None)
    of_text = "Other text"
    if sizes:
        shown = " to ".join(dict.fromkeys(f"{size:.3f}" for size in (sizes[0], sizes[-1])))
        of_text = f"Text of {shown} bytes a target, other text"
    table = Table(
        title="nats per source token (bits per byte)" if sizes else "nats per hidden token",
        caption=f"{of_text} than the validation's: compare within this table.{_effective(readings, losses)}",
    )
    first, *others = readings
    differences = [f"{other.name} - {first.name}" for other in others]
    for name in ("context", *(reading.column for reading in readings), *differences):
        table.add_column(name, justify="right", no_wrap=True)
    for multiple in sorted({loss.multiple for loss in losses}):
        row = {loss.reading: loss for loss in losses if loss.multiple == multiple}
        base, found = row[first.name], [row.get(other.name) for other in others]
        table.add_row(
            f"{multiple}x ({base.length})",
            *(
                "no meta-tokens"
                if loss is None
                else f"{loss.nats:.4f}"
                if loss.bits_per_byte is None
                else f"{loss.nats:.4f} ({loss.bits_per_byte:.4f})"
                for loss in (base, *found)
            ),
            *(f"{loss.nats - base.nats:+.4f} nats" if loss is not None else "-" for loss in found),
        )
    return table


def _effective(readings: Sequence[Reading], losses: Sequence[ReadingLoss]) -> str:
    """A sentence on the longest context of each reading that keeps 85 % of the probability of a token."""
    said = []
    for reading in readings:
        values = {float(loss.multiple): loss.nats for loss in losses if loss.reading == reading.name}
        kept = effective_length(values, is_loss=True)
        if kept is not None and len(values) > 1:
            said.append(f"{reading.column} {kept:g}x{' or more' * (kept == max(values))}")
    share = f"{KEPT_SHARE:.0%} of the probability of a token"
    return f" Effective length, up to which {share} is kept: {', '.join(said)}." if said else ""
