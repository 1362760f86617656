"""The figure of patching: how often answers follow the donor, from place to place along the layers.

the stream     as it enters a layer, and behind each of its branches, in the order in which they come
values         of each attention: what others get from a token there
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from lightning_metatok.lit.answers.figures import GREEN, PINK, YELLOW
from lightning_metatok.palette import BLUE, GREY, ORANGE, SKY
from lightning_metatok.probes.drawing import put_title

LOOKS = {
    "opening": (YELLOW, "^"),
    "closing": (ORANGE, "v"),
    "marks": (PINK, "D"),
    "list": (BLUE, "o"),
    "rest": (GREY, "X"),
    "question": (SKY, "P"),
    "last": (GREEN, "s"),
}
"""Colour and marker of each group."""
CEILING = "the list is the other one from the start (ceiling)"


def patching_figure(table: DataFrame, title: str) -> Figure:
    """Shares that follow above, changes of log-probability below; the stream left, values right."""
    is_values = table.place.str.startswith("values_of")
    parts = [table[~is_values], table[is_values]]
    widths = [part["where"].nunique() for part in parts]
    figure = Figure(figsize=(max(8.4, 2.4 + 0.34 * sum(widths)), 6.2), dpi=150, layout="constrained")
    axes = figure.subplots(2, 2, sharex="col", sharey="row", width_ratios=[max(w, 3) for w in widths])
    for column, part in enumerate(parts):
        for row, name in enumerate(("follows", "gap_change")):
            _draw(axes[row, column], part, name)
        axes[0, column].axhline(
            float(table.follows_unpatched.iloc[0]), color=GREY, linestyle=":", label="nothing patched"
        )
        axes[1, column].axhline(0, color=GREY, linestyle=":")
        for name, row in (("follows", 0), ("gap_change", 1)):
            for value in table.loc[table.ceiling, name]:
                axes[row, column].axhline(value, color=BLUE, linestyle="--", linewidth=1, label=CEILING)
        ticks = list(part["where"].drop_duplicates())
        axes[1, column].set_xticks(range(len(ticks)), [_short(tick) for tick in ticks], rotation=90)
    axes[0, 0].set_ylim(-0.03, 1.03)
    axes[0, 0].set_ylabel("answers that follow the donor\n(share of pairs)", fontsize=8)
    axes[1, 0].set_ylabel("change of log p(donor's)\n- log p(own) (nats)", fontsize=8)
    axes[0, 0].set_title("the stream, from place to place", fontsize=8)
    axes[0, 1].set_title("value vectors of one attention", fontsize=8)
    for each in axes.flat:
        each.tick_params(labelsize=7)
        each.grid(axis="y", color="0.9")
        each.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=7)
    put_title(figure, title, f"{int(table.n.iloc[0])} pairs of prompts; bands: 95 % intervals")
    return figure


def _draw(axes: Axes, part: DataFrame, column: str) -> None:
    at = {where: x for x, where in enumerate(part["where"].drop_duplicates())}
    for group, rows in part[~part.ceiling].groupby("group", sort=False):
        colour, marker = LOOKS[str(group)]
        x, y, low, high = rows["where"].map(at), rows[column], rows[f"{column}_low"], rows[f"{column}_high"]
        looks = {"color": colour, "marker": marker, "fillstyle": "none", "label": rows.label.iloc[0]}
        if part.place.str.startswith("values_of").any():  # one attention says nothing of the next
            axes.vlines(x, low, high, color=colour)
            axes.plot(x, y, linestyle="none", **looks)
        else:
            axes.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
            axes.plot(x, y, **looks)


def _short(where: str) -> str:
    """`layer 0, values of self-attention` as a tick."""
    return where.removeprefix("layer ").replace(", values of ", ": ").replace(", ", ": ")
