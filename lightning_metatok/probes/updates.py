"""Updates: what self-attention, meta-attention and the MLP of each layer add to the stream, and say for the answer.

    size     |update| / |stream before it|, by kind of token
    answer   what the update says for the right token at the place that predicts it: its part of the logit, above the
             mean logit of all tokens (direct logit attribution; parts of all branches and the embedding add up to it)

A branch may matter a lot and say nothing directly: what it moves can be read by later layers. Interventions tell.
"""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pandas import DataFrame
from torch import Tensor

from lightning_metatok.analysis.residual import logit_attribution, norm_share
from lightning_metatok.lit.answers.figures import GREEN
from lightning_metatok.model.recording import LayerRecord, Recording
from lightning_metatok.palette import BLUE, GREY, ORANGE
from lightning_metatok.probes.base import Finding, Probe, Subject
from lightning_metatok.probes.drawing import put_title
from lightning_metatok.probes.inside import inside, mean_interval, real_BT
from lightning_metatok.probes.trials import LEAST

BRANCHES = {"self": ("self-attention", BLUE), "meta": ("second attention", ORANGE), "mlp": ("MLP", GREEN)}
SHORT = {"self_attention": "self", "meta_attention": "meta"}
"""Branches of a model, as they are called here."""


class Updates(Probe):
    """Norms of updates and direct logit attribution."""

    name = "updates"
    question = "how much does each branch add, and what does it say for the answer?"

    def check(self, subject: Subject) -> None:
        """Prompts enough."""
        subject.need_examples(self.name, LEAST)

    def run(self, subject: Subject) -> list[Finding]:
        """Measure."""
        sizes: dict[tuple[int, str, str], list[np.ndarray]] = {}
        parts: list[np.ndarray] = []
        linear = subject.config.norm == "pre" and subject.examples is not None
        for batch, recording in inside(subject, self.name):
            answers_BT = batch.targets_BT >= 0
            kinds = {"source tokens": real_BT(batch) & ~batch.meta_mask_BT, "marks": batch.meta_mask_BT}
            if subject.examples is not None:
                kinds["where the answer is predicted"] = answers_BT
            for number, layer in enumerate(recording.layers):
                for branch, (update, before) in branches(layer).items():
                    share_BT = norm_share(update, before)
                    for kind, where_BT in kinds.items():
                        has = where_BT.any(dim=1)
                        mean_B = (share_BT * where_BT).sum(dim=1)[has] / where_BT.sum(dim=1)[has]
                        sizes.setdefault((number, branch, kind), []).append(mean_B.cpu().double().numpy())
            if linear:
                parts.append(attributed(subject, recording, answers_BT, batch.targets_BT).cpu().double().numpy())
        rows = [
            {"measure": "size", "layer": layer, "branch": branch, "tokens": kind, **_mean(np.concatenate(found))}
            for (layer, branch, kind), found in sizes.items()
            if sum(map(len, found)) > 1
        ]
        if linear:
            names = [(-1, "embedding"), *((i, b) for i in range(subject.config.n_layers) for b in BRANCHES)]
            for (at, branch), part_K in zip(names, np.concatenate(parts, axis=1), strict=True):
                if branch != "meta" or subject.config.added(at):
                    kind = "where the answer is predicted"
                    rows.append({"measure": "answer", "layer": at, "branch": branch, "tokens": kind, **_mean(part_K)})
        table = DataFrame(rows)
        says = self._says(table, linear)
        return [Finding(self.name, table, _figure(table, f"{subject.label}: {says}"), says)]

    def _says(self, table: DataFrame, linear: bool) -> str:
        marks = table[(table.measure == "size") & (table.tokens == "marks")]
        lines = []
        if linear:
            answer = table[table.measure == "answer"]
            top = answer.loc[answer["mean"].idxmax()]
            branch = BRANCHES[top.branch][0] if top.branch in BRANCHES else top.branch
            lines.append(f"{branch} of layer {top.layer} says most for the answer ({top['mean']:+.1f} in the logit)")
        if len(meta := marks[marks.branch == "meta"]):
            top = meta.loc[meta["mean"].idxmax()]
            lines.append(
                f"the second attention adds up to {top['mean']:.1f} times their norm to marks (layer {top.layer})"
            )
        return "; ".join(lines) or "sizes of updates, layer by layer"


def branches(layer: LayerRecord) -> dict[str, tuple[Tensor, Tensor]]:
    """What each branch added to what."""
    return {SHORT.get(name, name): (found.update_BTD, found.before_BTD) for name, found in layer.branches.items()}


def attributed(
    subject: Subject,
    recording: Recording,
    answers_BT: Tensor,
    targets_BT: Tensor,
) -> Tensor:
    """Parts of the right token's logit above the mean logit, [1 + 3 L, K]: embedding, then self, meta and MLP of each
    layer; 0 where there is no second attention. Pre-norm models only."""
    model = subject.model
    parts = [recording.layers[0].before_BTD[answers_BT]]
    for layer in recording.layers:
        updates = {short: update_BTD for short, (update_BTD, _) in branches(layer).items()}
        nothing_BTD = torch.zeros_like(layer.before_BTD)
        parts += [updates.get(short, nothing_BTD)[answers_BT] for short in BRANCHES]
    head_VD = (model.embedding if model.head is None else model.head).weight
    directions_KD = head_VD[targets_BT[answers_BT]] - head_VD.mean(dim=0)
    norm: Any = model.norm
    by_part_PK, _ = logit_attribution(torch.stack(parts), norm.weight, directions_KD, norm.bias, norm.eps)
    return by_part_PK.detach()


def _mean(values: np.ndarray) -> dict[str, float]:
    mean = mean_interval(values)
    return {"n": len(values), "mean": mean.mean, "low": mean.low, "high": mean.high}


def _figure(table: DataFrame, title: str) -> Figure:
    sizes, answer = table[table.measure == "size"], table[table.measure == "answer"]
    kinds = list(dict.fromkeys(sizes.tokens))
    n_panels = len(kinds) + bool(len(answer))
    figure = Figure(figsize=(2.6 * n_panels, 3.6), dpi=150, layout="constrained")
    panels = figure.subplots(1, n_panels, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=False):
        _points(axes, sizes[sizes.tokens == kind])
        axes.set_title(f"size, {kind}", fontsize=8)
        axes.set_yscale("log")
        axes.set_ylim(0.7 * sizes["mean"].clip(lower=1e-4).min(), 1.4 * sizes.high.max())
    panels[0].set_ylabel("|update| / |stream before it|", fontsize=8)
    if len(answer):
        _bars(panels[-1], answer)
        panels[-1].axhline(0, color=GREY, linewidth=0.8)
        panels[-1].set_title("said for the answer", fontsize=8)
        panels[-1].set_ylabel("part of the logit above the mean", fontsize=8)
    shown = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    put_title(figure, title, "bands and bars: 95 % intervals over prompts")
    return figure


def _points(axes: Any, rows: DataFrame) -> None:
    for branch, (label, colour) in BRANCHES.items():
        part = rows[(rows.branch == branch) & (rows["mean"] > 0)]
        if len(part):
            axes.fill_between(part.layer, part.low, part.high, color=colour, alpha=0.2, lw=0)
            marker = {"self": "o", "meta": "D", "mlp": "s"}[branch]
            axes.plot(part.layer, part["mean"], color=colour, marker=marker, fillstyle="none", label=label)
    axes.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
    _finish(axes, rows)


def _bars(axes: Any, rows: DataFrame) -> None:
    present = [branch for branch in BRANCHES if branch in set(rows.branch)]
    width = 0.8 / len(present)
    for place, branch in enumerate(present):
        part, (label, colour) = rows[rows.branch == branch], BRANCHES[branch]
        x = part.layer + (place - (len(present) - 1) / 2) * width
        error = [(part["mean"] - part.low).clip(lower=0), (part.high - part["mean"]).clip(lower=0)]
        axes.bar(x, part["mean"], width, color=colour, yerr=error, label=label, error_kw={"linewidth": 1})
    first = rows[rows.branch == "embedding"]
    axes.bar([-1], first["mean"], width, color=GREY, label="embedding")
    _finish(axes, rows)


def _finish(axes: Any, rows: DataFrame) -> None:
    ticks = sorted(set(rows.layer))
    axes.set_xticks(ticks, ["emb." if t < 0 else str(t) for t in ticks], fontsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel("layer", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
