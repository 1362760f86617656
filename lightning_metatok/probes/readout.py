"""Readout: which tokens before a mark can be read off its state, layer by layer, by a linear probe.

    L9 M a1 a4 a5 M          closing mark: 1 back a5, 2 back a4, 3 back a1
       opening       closing

Beside the marks stands the last token of each segment, an ordinary token that has seen the same: what marks alone can
do is what they hold beyond that. What can be read need not be used: `patching` and `eviction` tell.
"""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pandas import DataFrame
from torch import Tensor

from lightning_metatok.analysis.readout import read_out
from lightning_metatok.data import Batch
from lightning_metatok.data.examples import BODY, CLOSES, META, OPENS, Examples
from lightning_metatok.errors import UserError
from lightning_metatok.lit.answers.figures import GREEN, PINK, YELLOW
from lightning_metatok.palette import BLUE, GREY, ORANGE, SKY
from lightning_metatok.probes.base import Finding, Probe, Subject
from lightning_metatok.probes.drawing import put_title
from lightning_metatok.probes.inside import by_prompt, inside, mean_interval, preceding

LEAST, FOLDS = 100, 5
COLOURS = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY)
READERS = {"closing": "closing marks", "opening": "opening marks", "marks": "marks", "last": "last token of a segment"}


class Readout(Probe):
    """Linear probes on states of marks."""

    name = "readout"
    question = "which tokens can be read off a mark, against shuffled labels?"
    needs_task = True

    def __init__(self, layers: list[int] | None = None, furthest: int = 4) -> None:
        """Describe the probe.

        Args:
            layers: Layers whose entering states are read, the number of layers standing for what leaves the last one;
                null: all of these.
            furthest: Source tokens before the mark that are looked for.
        """
        self.layers, self.furthest = layers, furthest

    def check(self, subject: Subject) -> None:
        """Layers that exist, prompts enough to fit on."""
        if self.layers is not None:
            subject.need_layers(self.name, [x for x in self.layers if x != subject.config.n_layers] or None)
        if not 1 <= self.furthest <= len(COLOURS):
            raise UserError(f"probe.{self.name}.furthest={self.furthest}: expected a number from 1 to {len(COLOURS)}")
        subject.need_examples(self.name, LEAST, f"{FOLDS} folds")

    def run(self, subject: Subject) -> list[Finding]:
        """Fit and judge."""
        layers = list(range(subject.config.n_layers + 1)) if self.layers is None else self.layers
        vectors, labels, prompts = self._collect(subject, layers)
        rows: list[dict[str, Any]] = []
        for done, ((reader, layer), x_RD) in enumerate(vectors.items()):
            subject.progress(self.name, done, len(vectors))
            for distance in range(1, self.furthest + 1):
                label_R = labels[reader][distance - 1]
                there = label_R >= 0
                group = prompts[reader][there]
                if len(np.unique(group)) < LEAST // 2:
                    continue
                found = read_out(x_RD[there], label_R[there], group, folds=FOLDS, seed=subject.seed)
                row = {"reader": reader, "layer": layer, "distance": distance, "n": int(there.sum())}
                for name, right in (("accuracy", found.right_n), ("shuffled", found.shuffled_n)):
                    mean = mean_interval(by_prompt(right, group))
                    row |= {name: mean.mean, f"{name}_low": mean.low, f"{name}_high": mean.high}
                rows.append({**row, "majority": float(by_prompt(found.majority_n, group).mean())})
        table = DataFrame(rows)
        says = _says(table)
        return [Finding(self.name, table, _figure(table, f"{subject.label}: {says}"), says)]

    def _collect(
        self, subject: Subject, layers: list[int]
    ) -> tuple[dict[tuple[str, int], np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Of each reader: states by layer, token ids before it [furthest, R] (-1: none), and its prompt."""
        vectors: dict[tuple[str, int], list[Tensor]] = {}
        labels: dict[str, list[Tensor]] = {}
        prompts: dict[str, list[Tensor]] = {}
        start = 0
        for batch, recording in inside(subject, self.name):
            n = len(batch.tokens_BT)
            places = preceding(batch, self.furthest)
            for reader, where_BT in _readers(subject.prompts, start, batch).items():
                b, t = torch.nonzero(where_BT, as_tuple=True)
                before = places[:, b, t]
                found = batch.tokens_BT[b.expand_as(before), before.clamp(min=0)]
                labels.setdefault(reader, []).append(torch.where(before >= 0, found, -1))
                prompts.setdefault(reader, []).append(b + start)
                for layer in layers:
                    leaves = layer == subject.config.n_layers
                    record = recording.layers[layer - leaves]
                    state_BTD = record.after_BTD if leaves else record.before_BTD
                    vectors.setdefault((reader, layer), []).append(state_BTD[b, t])
            start += n
        kept = {reader for reader, parts in prompts.items() if sum(map(len, parts))}
        return (
            {key: torch.cat(parts).cpu().numpy() for key, parts in vectors.items() if key[0] in kept},
            {key: torch.cat(parts, dim=1).cpu().numpy() for key, parts in labels.items() if key in kept},
            {key: torch.cat(parts).cpu().numpy() for key, parts in prompts.items() if key in kept},
        )


def _readers(examples: Examples, start: int, batch: Batch) -> dict[str, Tensor]:
    """Which places are read, bool [B, T] each: marks that close or open a segment, other marks, last tokens."""
    n, T = batch.tokens_BT.shape
    piece = slice(examples.offsets[start], examples.offsets[start + n])
    flags = np.asarray(examples.flags[piece])
    masks = _flat_readers(flags)
    lengths = examples.lengths[start : start + n]
    at = np.repeat(np.arange(n), lengths), np.concatenate([np.arange(length) for length in lengths])
    found = {}
    for reader, mask in masks.items():
        mask_BT = np.zeros((n, T), dtype=bool)
        mask_BT[at] = mask
        found[reader] = torch.from_numpy(mask_BT).to(batch.tokens_BT.device)
    return found


def _flat_readers(flags: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
    meta = (flags & META) > 0
    at = np.arange(len(flags))
    following = np.minimum.accumulate(np.where(meta, len(flags) - 1, at)[::-1])[::-1]
    first = meta & ~np.concatenate([[False], meta[:-1]])
    last = meta & ~np.concatenate([meta[1:], [False]])
    closing = first & ((flags[following] & CLOSES) > 0)
    opening = last & ~closing & ((flags[following] & OPENS) > 0)
    closes = np.flatnonzero((flags & CLOSES) > 0)
    previous = np.maximum.accumulate(np.where(meta, 0, at))
    ends = np.zeros(len(flags), dtype=bool)
    ends[previous[closes - 1]] = True
    return {
        "closing": closing,
        "opening": opening,
        "marks": meta & ~closing & ~opening,
        "last": ends & ((flags & BODY) > 0),
    }


def _says(table: DataFrame) -> str:
    reader = next(r for r in READERS if r in set(table.reader))
    parts = []
    for distance, rows in table[table.reader == reader].groupby("distance"):
        top = rows.loc[rows.accuracy.idxmax()]
        parts.append(f"{distance} back {100 * top.accuracy:.0f} %")
    return f"read off {READERS[reader]} by a linear probe: the token {', '.join(parts)}"


def _figure(table: DataFrame, title: str) -> Figure:
    readers = [reader for reader in READERS if reader in set(table.reader)]
    figure = Figure(figsize=(1 + 2.8 * max(2, len(readers)), 3.8), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(readers), sharey=True, squeeze=False)[0]
    for axes, reader in zip(panels, readers, strict=True):
        mine = table[table.reader == reader]
        for (distance, rows), colour in zip(mine.groupby("distance"), COLOURS, strict=False):
            axes.fill_between(rows.layer, rows.accuracy_low, rows.accuracy_high, color=colour, alpha=0.2, lw=0)
            axes.plot(rows.layer, rows.accuracy, color=colour, marker="o", fillstyle="none", label=f"{distance} back")
        nulls = mine.groupby("layer")
        axes.plot(nulls.shuffled.max().index, nulls.shuffled_high.max(), ":", color=GREY, label="shuffled labels")
        axes.plot(nulls.majority.max().index, nulls.majority.max(), "--", color=GREY, label="commonest token")
        axes.set_title(READERS[reader], fontsize=9)
        axes.set_xticks(sorted(set(mine.layer)))
        axes.set_xlabel("layer that the state enters", fontsize=8)
        axes.set_ylim(-0.03, 1.03)
        axes.tick_params(labelsize=7)
        axes.grid(axis="y", color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("token read off (cross-validated share)", fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=7)
    put_title(figure, title, "bands: 95 % intervals over prompts; grey: the highest of all distances")
    return figure
