"""Rate-distortion: what a state tells about a target, for each nat of a code that it may be told with.

    state    last meta-token before the question's answer, last source token, mean of all meta-tokens
    target   first token of the answer

The states of a frozen model are encoded by variational bottlenecks (`analysis.rate_distortion`): held-out points for
every price of rate, their lower convex hull, and a bootstrap band over prompts. Beside them stand the entropy of the
labels and a uniform guess among them. Source: arXiv 2509.16278, section 5.1.
"""

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pandas import DataFrame
from torch import Tensor

from lightning_metatok.analysis.rate_distortion import RateDistortion as Curve
from lightning_metatok.analysis.rate_distortion import rate_distortion_curve
from lightning_metatok.data import Batch
from lightning_metatok.errors import UserError
from lightning_metatok.lit.figures import BLUE, GREY, ORANGE, SKY
from lightning_metatok.lit.probes.base import Finding, Probe, Subject
from lightning_metatok.model.recording import recorded

LEAST = 150
"""Prompts that curves need: 30 in each of five folds."""
LAST_META, LAST_SOURCE, MEAN_META = "last meta-token", "last source token", "mean of meta-tokens"
STYLES = {LAST_META: (ORANGE, "D"), LAST_SOURCE: (BLUE, "o"), MEAN_META: (SKY, "s")}


class RateDistortion(Probe):
    """Rate-distortion curves of the answer, told from meta-tokens and from the last source token."""

    name = "rate_distortion"
    needs_task = True

    def __init__(self, layers: list[int] | None = None, width: int = 16) -> None:
        """Describe the probe.

        Args:
            layers: Layers whose states are encoded, after them; null: the last.
            width: Dimensions of the code.
        """
        self.layers, self.width = layers, width

    def check(self, subject: Subject) -> None:
        """Layers that exist, and prompts enough for five folds."""
        subject.need_layers(self.name, self.layers)
        subject.need_examples(self.name, LEAST, "five folds and a band")
        if self.width < 1:
            raise UserError(f"probe.{self.name}.width={self.width}: expected 1 or more")

    def run(self, subject: Subject) -> list[Finding]:
        """Take the states, and train the bottlenecks of one place and layer after the other."""
        layers = [subject.config.n_layers - 1] if self.layers is None else self.layers
        states, labels_N = _states(subject, layers)
        curves: dict[tuple[int, str], Curve] = {}
        for done, ((layer, place), states_ND) in enumerate(states.items()):
            subject.progress(self.name, done, len(states))
            curves[layer, place] = rate_distortion_curve(states_ND, labels_N, width=self.width, seed=subject.seed)
        shares = np.bincount(labels_N) / len(labels_N)
        shares = shares[shares > 0]
        entropy, uniform = float(-(shares * np.log(shares)).sum()), float(np.log(len(shares)))
        table = _table(curves, len(labels_N), entropy, uniform)
        best = table.loc[table[table["kind"] == "curve"].distortion_nats.idxmin()]
        says = (
            f"the {best.place} after layer {best.layer} tells {entropy - best.distortion_nats:.2f} of the answer's "
            f"{entropy:.2f} nats"
        )
        return [Finding(self.name, table, _figure(table, f"{subject.label}: {says}"), says)]


@torch.no_grad()
def _states(
    subject: Subject, layers: list[int]
) -> tuple[dict[tuple[int, str], NDArray[np.float32]], NDArray[np.int64]]:
    """States [N, D] by (layer, place), and the answers as classes from 0 [N]."""
    found: dict[tuple[int, str], list[Tensor]] = {}
    answers = []
    with recorded(subject.model, attention=False) as recording:
        for batch in subject.batches:
            subject.forward(batch, return_hidden=True)
            rows = torch.arange(len(batch.tokens_BT), device=batch.tokens_BT.device)
            first_B = (batch.targets_BT >= 0).long().argmax(dim=1)
            answers.append(batch.targets_BT[rows, first_B])
            for layer in layers:
                for place, weights_BT in _places(batch, first_B, subject.has_meta_tokens).items():
                    x_BD = torch.einsum("bt,btd->bd", weights_BT, recording.layers[layer].after_BTD)
                    found.setdefault((layer, place), []).append(x_BD.float().cpu())
    labels_N = torch.cat(answers).cpu().unique(return_inverse=True)[1].numpy()
    return {key: torch.cat(parts).numpy() for key, parts in found.items()}, labels_N


def _places(batch: Batch, first_B: Tensor, with_meta: bool) -> dict[str, Tensor]:
    """Weights [B, T] of the tokens whose states are averaged; `first_B` is where the answer is predicted."""
    before_BT = torch.arange(batch.tokens_BT.shape[1], device=first_B.device) <= first_B.unsqueeze(1)
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


def _table(curves: dict[tuple[int, str], Curve], n: int, entropy: float, uniform: float) -> DataFrame:
    """Points of every price, and each curve with its band on a grid of rates."""
    rows = []
    for (layer, place), curve in curves.items():
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
    return DataFrame(rows)


def _figure(table: DataFrame, title: str) -> Figure:
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
        axes.axhline(here.label_entropy_nats.iloc[0], color=GREY, ls="--", label="entropy of the answer")
        axes.axhline(here.uniform_nats.iloc[0], color=GREY, ls=":", label="uniform guess")
        axes.set_ylim(bottom=0)
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=0)
        axes.set_title(f"after layer {layer}", fontsize=9)
        axes.set_xlabel("rate (nats)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.axes[0].set_ylabel("distortion, held out (nats)")
    return figure
