"""Attention: who looks at whom, and how far back, in self-attention and in the second attention of each layer.

    mark -> mark   mark -> source   source -> mark   source -> source

Beside each share of attention stands what uniform attention over everything that may be seen would give. Averages are
over heads and prompts; attention says where a head looks, not what moves (see `paths` for that).
"""

import itertools
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pandas import DataFrame
from torch import Tensor

from lightning_metatok.analysis.attention_maps import mass_by_kind, mean_by_distance
from lightning_metatok.data import Batch
from lightning_metatok.errors import UserError
from lightning_metatok.lit.answers.figures import GREEN, PINK
from lightning_metatok.model.branch import SELF_ATTENTION
from lightning_metatok.palette import BLUE, GREY, ORANGE
from lightning_metatok.probes.base import Finding, Probe, Subject
from lightning_metatok.probes.drawing import put_title
from lightning_metatok.probes.inside import inside, mean_interval, real_BT

STYLES = {
    ("mark", "mark"): (ORANGE, "D"),
    ("source", "mark"): (PINK, "^"),
    ("mark", "source"): (GREEN, "s"),
    ("source", "source"): (BLUE, "o"),
}
FIRST, SECOND = "self-attention", "second attention"


class Attention(Probe):
    """Attention by kind of token and by distance."""

    name = "attention"
    question = "who looks at whom, how far back, against uniform attention"

    def __init__(self, layers: list[int] | None = None, heads: list[int] | None = None, furthest: int = 24) -> None:
        """Describe the probe.

        Args:
            layers: Layers that are looked at; null: all.
            heads: Heads that are averaged over; null: all.
            furthest: Tokens between query and key, at most, marks among them.
        """
        self.layers, self.heads, self.furthest = layers, heads, furthest

    def check(self, subject: Subject) -> None:
        """Layers and heads that exist."""
        subject.need_layers(self.name, self.layers)
        subject.need_heads(self.name, self.heads)
        if self.furthest < 1:
            raise UserError(f"probe.{self.name}.furthest={self.furthest}: expected 1 or more")

    def run(self, subject: Subject) -> list[Finding]:
        """Average."""
        layers, heads = subject.need_layers(self.name, self.layers), subject.need_heads(self.name, self.heads)
        mass: dict[tuple[Any, ...], list[np.ndarray]] = {}
        by_distance: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}
        for batch, recording in inside(subject, self.name, attention=True):
            kinds = {"mark": batch.meta_mask_BT, "source": real_BT(batch) & ~batch.meta_mask_BT}
            for layer in layers:
                record = recording.layers[layer]
                for branch, found in record.branches.items():
                    if found.scores_BNTT is None:
                        continue
                    name, scores = FIRST if branch == SELF_ATTENTION.name else SECOND, found.scores_BNTT
                    mean_BTT = found.probs_BNTT[:, heads].mean(dim=1)
                    for query, key in itertools.product(kinds, kinds):
                        self._add(mass, by_distance, (layer, name, query, key), mean_BTT, _seen(scores, batch), kinds)
        table = DataFrame([*_mass_rows(mass), *_distance_rows(by_distance)])
        says = self._says(table)
        return [Finding(self.name, table, _figure(table, f"{subject.label}: {says}"), says)]

    def _add(
        self,
        mass: dict[tuple[Any, ...], list[np.ndarray]],
        by_distance: dict[tuple[Any, ...], tuple[Tensor, Tensor]],
        where: tuple[int, str, str, str],
        probs_BTT: Tensor,
        seen_BTT: Tensor,
        kinds: dict[str, Tensor],
    ) -> None:
        query_BT, key_BT = kinds[where[2]], kinds[where[3]]
        share_B, uniform_B, n_B = mass_by_kind(probs_BTT, query_BT, key_BT, seen_BTT)
        found = torch.stack([share_B, uniform_B])[:, n_B > 0].double().cpu().numpy()
        if found.size:
            mass.setdefault(where, []).append(found)
            sums, counts = mean_by_distance(probs_BTT, query_BT, key_BT, seen_BTT, self.furthest)
            old = by_distance.get(where, (torch.zeros_like(sums), torch.zeros_like(counts)))
            by_distance[where] = old[0] + sums, old[1] + counts

    def _says(self, table: DataFrame) -> str:
        rows = table[(table.measure == "mass") & (table.attention == "self-attention")]
        to_marks = rows[(rows["query"] == "source") & (rows.key == "mark")]
        if not len(to_marks) or not to_marks.uniform.any():
            near = table[(table.measure == "distance") & (table.distance <= 1)].groupby("layer")["mean"].sum()
            return f"layer {near.idxmax()} looks most at the token itself and the one before ({near.max():.2f})"
        top = to_marks.loc[(to_marks["mean"] - to_marks.uniform).idxmax()]
        return (
            f"source tokens give marks {100 * top['mean']:.0f} % of their self-attention in layer {top.layer} "
            f"(uniform: {100 * top.uniform:.0f} %)"
        )


def _seen(scores_BNTT: Tensor, batch: Batch) -> Tensor:
    """What a query may see, bool [B, T, T], without the filling."""
    return ~scores_BNTT[:, 0].isneginf() & real_BT(batch).unsqueeze(1)


def _mass_rows(mass: dict[tuple[Any, ...], list[np.ndarray]]) -> list[dict[str, Any]]:
    rows = []
    for (layer, name, query, key), parts in mass.items():
        share_n, uniform_n = np.concatenate(parts, axis=1)
        mean = mean_interval(share_n)
        row = {"measure": "mass", "layer": layer, "attention": name, "query": query, "key": key, "distance": -1}
        row |= {"n": len(share_n), "mean": mean.mean, "low": mean.low, "high": mean.high}
        rows.append({**row, "uniform": float(uniform_n.mean())})
    return rows


def _distance_rows(by_distance: dict[tuple[Any, ...], tuple[Tensor, Tensor]]) -> list[dict[str, Any]]:
    rows = []
    for (layer, name, query, key), (sums, counts) in by_distance.items():
        for distance in torch.nonzero(counts)[:, 0].tolist():
            row = {"measure": "distance", "layer": layer, "attention": name, "query": query, "key": key}
            mean = float(sums[distance] / counts[distance])
            rows.append({**row, "distance": distance, "n": int(counts[distance]), "mean": mean})
    return rows


def _figure(table: DataFrame, title: str) -> Figure:
    layers = sorted(set(table.layer))
    figure = Figure(figsize=(1.2 + 2.3 * max(2, len(layers)), 6.2), dpi=150, layout="constrained")
    panels = figure.subplots(3, len(layers), squeeze=False, sharey="row")
    for column, layer in enumerate(layers):
        _draw_mass(panels[0, column], table[(table.measure == "mass") & (table.layer == layer)])
        panels[0, column].set_title(f"layer {layer}", fontsize=9)
        for row, name in ((1, "self-attention"), (2, SECOND)):
            axes = panels[row, column]
            here = table[(table.measure == "distance") & (table.layer == layer) & (table.attention == name)]
            for (query, key), (colour, marker) in STYLES.items():
                one = here[(here["query"] == query) & (here.key == key)]
                axes.plot(one.distance, one["mean"], color=colour, marker=marker, fillstyle="none", markersize=3, lw=1,
                          label=f"{query} -> {key}")  # fmt: skip
            if not len(here):
                axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes, color=GREY, fontsize=8)
            axes.set_xlabel("tokens back", fontsize=8)
            _finish(axes)
    for row, label in enumerate(("share of attention", "self-attention to a key", "second attention to a key")):
        panels[row, 0].set_ylabel(label, fontsize=8)
    handles, labels = panels[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    put_title(figure, title, "bars: 95 % intervals over prompts; grey lines: uniform attention")
    return figure


def _draw_mass(axes: Any, rows: DataFrame) -> None:
    rows = rows[(rows["mean"] > 0) | (rows.uniform > 0)]
    ticks = []
    for x, (_, row) in enumerate(rows.iterrows()):
        colour, _ = STYLES[row["query"], row.key]
        hatch = None if row.attention == "self-attention" else "///"
        error = [[max(0.0, row["mean"] - row.low)], [max(0.0, row.high - row["mean"])]]
        axes.bar(x, row["mean"], 0.8, color=colour, yerr=error, hatch=hatch, edgecolor="white", error_kw={"lw": 1})
        axes.plot([x - 0.4, x + 0.4], [row.uniform] * 2, color="0.35", linewidth=1.5)
        short = "" if row.attention == "self-attention" else "\n2nd"
        ticks.append(f"{row['query'][0]}→{row.key[0]}{short}")
    axes.set_xticks(range(len(ticks)), ticks, fontsize=6.5)
    _finish(axes)


def _finish(axes: Any) -> None:
    axes.tick_params(axis="y", labelsize=7)
    axes.tick_params(axis="x", labelsize=6.5)
    axes.spines[["top", "right"]].set_visible(False)
