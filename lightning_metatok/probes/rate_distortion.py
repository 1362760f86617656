"""Rate-distortion: what a state tells about a target, for each nat of a code that it may be told with.

    target   answer: the first token of a task's answer            next: the source token behind a meta-token
    asked    where the answer is predicted                         at that meta-token, one a row, drawn at random
    state    last meta-token up to there, last source token up to there, mean of all meta-tokens up to there

Without meta-tokens `next` asks at random source tokens. The states of a frozen model are encoded by variational
bottlenecks (`analysis.rate_distortion`): held-out points for every price of rate, their lower convex hull, and a
bootstrap band over prompts. Beside them stand the entropy of the labels, a uniform guess among them, and a check
without any bottleneck: what a logistic regression leaves (`analysis.probed_information`), which no rate limits.
Source: arXiv 2509.16278, section 5.1.
"""

from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pandas import DataFrame
from scipy import stats
from torch import Tensor

from lightning_metatok.analysis.information import Information, probed_information
from lightning_metatok.analysis.rate_distortion import RateDistortion as Curve
from lightning_metatok.analysis.rate_distortion import rate_distortion_curve
from lightning_metatok.data import Batch
from lightning_metatok.errors import UserError
from lightning_metatok.palette import BLUE, GREY, ORANGE, SKY
from lightning_metatok.probes.base import Finding, Probe, Subject
from lightning_metatok.probes.inside import inside, real_BT

LEAST = 150
"""Prompts that curves need: 30 in each of five folds."""
LAST_META, LAST_SOURCE, MEAN_META = "last meta-token", "last source token", "mean of meta-tokens"
STYLES = {LAST_META: (ORANGE, "D"), LAST_SOURCE: (BLUE, "o"), MEAN_META: (SKY, "s")}


class RateDistortion(Probe):
    """Rate-distortion curves of a target, told from meta-tokens and from the last source token."""

    name = "rate_distortion"
    question = "how little of a state tells the answer, at a mark and beside it? (theory.md)"

    def __init__(
        self, layers: list[int] | None = None, width: int = 16, target: Literal["answer", "next"] = "answer"
    ) -> None:
        """Describe the probe.

        Args:
            layers: Layers whose states are encoded, after them; null: the last.
            width: Dimensions of the code.
            target: What is to be told: the first token of the answer, or the source token behind a meta-token.
        """
        self.layers, self.width, self.target = layers, width, target

    def check(self, subject: Subject) -> None:
        """Layers that exist, and prompts enough for five folds."""
        subject.need_layers(self.name, self.layers)
        subject.need_examples(self.name, LEAST, "five folds and a band")
        if self.width < 1:
            raise UserError(f"probe.{self.name}.width={self.width}: expected 1 or more")

    def cannot(self, subject: Subject) -> str | None:
        """Text has no answers."""
        if self.target == "answer" and subject.examples is None:
            return f"text has no answers; probe.{self.name}.target=next asks for the next source token"
        return super().cannot(subject)

    def run(self, subject: Subject) -> list[Finding]:
        """Take the states, and train the bottlenecks of one place and layer after the other."""
        layers = [subject.config.n_layers - 1] if self.layers is None else self.layers
        states, labels_N = _states(subject, layers, self.target)
        curves: dict[tuple[int, str], tuple[Curve, Information]] = {}
        for done, ((layer, place), states_ND) in enumerate(states.items()):
            subject.progress(self.name, done, len(states))
            curve = rate_distortion_curve(states_ND, labels_N, width=self.width, seed=subject.seed)
            curves[layer, place] = curve, probed_information(states_ND, labels_N, seed=subject.seed)
        shares = np.bincount(labels_N) / len(labels_N)
        entropy, uniform = float(stats.entropy(shares)), float(np.log(len(shares)))
        table = _table(curves, len(labels_N), entropy, uniform)
        best = table.loc[table[table["kind"] == "curve"].distortion_nats.idxmin()]
        what = "answer" if self.target == "answer" else "next source token"
        says = (
            f"the {best.place} after layer {best.layer} tells {entropy - best.distortion_nats:.2f} of the {what}'s "
            f"{entropy:.2f} nats"
        )
        return [Finding(self.name, table, _figure(table, f"{subject.label}: {says}", what), says)]


@torch.no_grad()
def _states(
    subject: Subject, layers: list[int], target: str
) -> tuple[dict[tuple[int, str], NDArray[np.float32]], NDArray[np.int64]]:
    """States [N, D] by (layer, place), and the targets as classes from 0 [N]."""
    found: dict[tuple[int, str], list[Tensor]] = {}
    labels = []
    generator = torch.Generator().manual_seed(subject.seed)
    for batch, recording in inside(subject, RateDistortion.name):
        if target == "answer":
            asked_B = (batch.targets_BT >= 0).long().argmax(dim=1)
            label_B = batch.targets_BT.gather(1, asked_B.unsqueeze(1)).squeeze(1)
        else:
            asked_B, label_B = _asked_next(batch, subject.has_meta_tokens, generator)
        labels.append(label_B)
        for layer in layers:
            for place, weights_BT in _places(batch, asked_B, subject.has_meta_tokens).items():
                x_BD = torch.einsum("bt,btd->bd", weights_BT, recording.layers[layer].after_BTD)
                found.setdefault((layer, place), []).append(x_BD.float().cpu())
    labels_N = torch.cat(labels).cpu().unique(return_inverse=True)[1].numpy()
    return {key: torch.cat(parts).numpy() for key, parts in found.items()}, labels_N


def _asked_next(batch: Batch, with_meta: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Where each row is asked for the next source token, and that token, both [B].

    A place counts when a source token stands before it and one behind it, in the same document.
    """
    source_BT = ~batch.meta_mask_BT & real_BT(batch)
    asked_BT = torch.zeros_like(source_BT)
    asked_BT[:, 1:-1] = (source_BT[:, :-2].cumsum(dim=1) > 0) & source_BT[:, 2:]
    asked_BT[:, 1:-1] &= batch.document_ids_BT[:, 1:-1] == batch.document_ids_BT[:, 2:]
    asked_BT &= batch.meta_mask_BT if with_meta else source_BT
    luck_BT = torch.rand(asked_BT.shape, generator=generator).to(asked_BT.device)
    asked_B = luck_BT.masked_fill(~asked_BT, -1.0).argmax(dim=1)
    return asked_B, batch.tokens_BT.gather(1, asked_B.unsqueeze(1) + 1).squeeze(1)


def _places(batch: Batch, asked_B: Tensor, with_meta: bool) -> dict[str, Tensor]:
    """Weights [B, T] of the tokens whose states are averaged, none of them behind `asked_B`."""
    before_BT = torch.arange(batch.tokens_BT.shape[1], device=asked_B.device) <= asked_B.unsqueeze(1)
    kinds = {LAST_SOURCE: before_BT & ~batch.meta_mask_BT}
    if with_meta:
        kinds |= {LAST_META: before_BT & batch.meta_mask_BT, MEAN_META: before_BT & batch.meta_mask_BT}
    found = {}
    for place, mask_BT in kinds.items():
        weights_BT = mask_BT.float()
        if place != MEAN_META:  # the last one alone
            weights_BT = weights_BT * (mask_BT.flip(1).cumsum(dim=1).flip(1) == 1)
        found[place] = weights_BT / weights_BT.sum(dim=1, keepdim=True).clamp(min=1)
    return found


def _table(
    curves: dict[tuple[int, str], tuple[Curve, Information]], n: int, entropy: float, uniform: float
) -> DataFrame:
    """Points of every price, each curve with its band on a grid of rates, and what the regression leaves."""
    rows = []
    for (layer, place), (curve, information) in curves.items():
        about = {"layer": layer, "place": place, "n_prompts": n, "label_entropy_nats": entropy, "uniform_nats": uniform}
        rates, distortions = curve.points
        for beta, rate, distortion in zip(curve.betas_B, rates, distortions, strict=True):
            point = {"kind": "point", "beta": beta, "rate_nats": rate, "rate_bits": rate / np.log(2)}
            rows.append({**about, **point, "distortion_nats": distortion})
        grid = np.concatenate([[0.0], np.geomspace(0.05, max(float(rates.max()), 1.0), 40)])
        low, high = curve.band(grid)
        for rate, distortion, lower, upper in zip(grid, curve.curve(grid), low, high, strict=True):
            line = {"kind": "curve", "rate_nats": rate, "rate_bits": rate / np.log(2), "distortion_nats": distortion}
            rows.append({**about, **line, "low": lower, "high": upper, "converged": curve.converged})
        told = information.estimate()
        left = {"distortion_nats": entropy - told.mean, "low": entropy - told.high, "high": entropy - told.low}
        rows.append({**about, "kind": "regression", **left})
    return DataFrame(rows)


def _figure(table: DataFrame, title: str, what: str) -> Figure:
    layers = sorted(set(table.layer))
    figure = Figure(figsize=(1.6 + 4.2 * len(layers), 4.0), dpi=150, layout="constrained")
    figure.suptitle(title, fontsize=9)
    for axes, layer in zip(figure.subplots(1, len(layers), squeeze=False, sharey=True)[0], layers, strict=True):
        here = table[table.layer == layer]
        for place, (colour, marker) in STYLES.items():
            points = here[(here.place == place) & (here["kind"] == "point")]
            line = here[(here.place == place) & (here["kind"] == "curve")]
            if len(line):
                axes.fill_between(line.rate_nats, line.low, line.high, color=colour, alpha=0.2, lw=0)
                axes.plot(line.rate_nats, line.distortion_nats, color=colour, label=place)
                axes.plot(
                    points.rate_nats, points.distortion_nats, marker, color=colour, fillstyle="none", markersize=4
                )
        for place, (colour, marker) in STYLES.items():
            for left in here[(here.place == place) & (here["kind"] == "regression")].itertuples():
                bar = [[left.distortion_nats - left.low], [left.high - left.distortion_nats]]
                # At the right edge: no rate limits it.
                x = 1.3 * float(here.rate_nats.max())
                axes.errorbar([x], [left.distortion_nats], bar, fmt=marker, color=colour, markersize=6, capsize=3)
        axes.axhline(here.label_entropy_nats.iloc[0], color=GREY, ls="--", label=f"entropy of the {what}")
        axes.axhline(here.uniform_nats.iloc[0], color=GREY, ls=":", label="uniform guess")
        axes.set_ylim(bottom=0)
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=0)
        axes.set_title(f"after layer {layer}", fontsize=9)
        axes.set_xlabel("rate (nats)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.plot([], [], "D", color=GREY, label="a regression, at any rate")
        axes.legend(frameon=False, fontsize=8)
    figure.axes[0].set_ylabel("distortion, held out (nats)")
    return figure
