"""The figure of the sharpening probe: the condition, the boost, and three differences of entropy, layer by layer."""

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from lightning_metatok.palette import BLUE, GREY, ORANGE

SERIES = (
    ("trained", "meta", BLUE, "meta keys"),
    ("trained", "random ordinary", GREY, "random ordinary keys"),
    ("untrained", "meta", ORANGE, "meta keys, untrained model"),
)
PANELS = (
    ("condition", "the condition: α > exp(−H)", "share of rows"),
    ("log_odds", "boost: embedding present − zeroed", "log odds of attention to the keys (nats)"),
    ("fall_without", "entropy: keys masked out − in", "nats"),
    ("fall_zeroed", "entropy: embedding zeroed − present", "nats"),
    ("fall_boost", "of that, by the boost alone", "nats"),
    ("fall_dropped", "entropy: positions dropped − kept", "nats"),
)


def draw(table: DataFrame, title: str) -> Figure:
    """Draw each measure by layer: means with 95 % intervals over prompts, single heads, and the spread of rows."""
    shown = [panel for panel in PANELS if (table.measure == panel[0]).any()]
    figure = Figure(figsize=(10.2, 6.4), dpi=150, layout="constrained")
    figure.suptitle("\n".join(textwrap.wrap(title, 110)), fontsize=10)
    grid = figure.subplots(2, 3).flatten()
    for axes, (measure, name, unit) in zip(grid, shown, strict=False):
        _draw_measure(axes, table[table.measure == measure])
        axes.set_title(name, fontsize=9)
        axes.set_ylabel(unit, fontsize=8)
    for axes in grid[len(shown) :]:
        axes.remove()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def _draw_measure(axes: Axes, table: DataFrame) -> None:
    layers = sorted(set(table.layer))
    is_share = bool((table.measure == "condition").all())
    drawn = [series for series in SERIES if ((table.model == series[0]) & (table["keys"] == series[1])).any()]
    for i, (model, keys, colour, label) in enumerate(drawn):
        rows = table[(table.model == model) & (table["keys"] == keys)]
        shift = 0.24 * (i - (len(drawn) - 1) / 2)
        whole, heads = rows[rows["head"] < 0], rows[rows["head"] >= 0]
        if not is_share:  # a share has no spread of its own
            axes.vlines(whole.layer + shift, whole.p05, whole.p95, color=colour, lw=1, alpha=0.5)
            axes.vlines(whole.layer + shift, whole.p25, whole.p75, color=colour, lw=5, alpha=0.3)
        axes.plot(heads.layer + shift, heads["mean"], ".", color=colour, markersize=4, alpha=0.5)
        errors = [whole["mean"] - whole.low, whole.high - whole["mean"]]
        x = whole.layer + shift
        axes.errorbar(x, whole["mean"], errors, fmt="D", color=colour, markersize=4, capsize=3, lw=1.2, label=label)
    if not is_share:
        axes.axhline(0, color="black", lw=0.6)
    axes.set_xticks(layers)
    axes.set_xlabel("layer", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
