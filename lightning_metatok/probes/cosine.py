"""Cosine: how alike a mark and the tokens before it are, layer by layer, beside what they would be by chance.

    state       of the mark and of the token, as they enter the layer
    embedding   the mark's state against the token's EMBEDDING (the paper's Fig. 2, right)
    value       value vectors of self-attention: what each would hand on

Two nulls stand beside every mean: marks put together with tokens of other prompts at the same distance (an anisotropic
stream makes any two states alike), and directions at random. Only what is outside of the first says something about
the pair.
"""

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from pandas import DataFrame
from torch import Tensor

from lightning_metatok.analysis.residual import cosine_test
from lightning_metatok.errors import UserError
from lightning_metatok.palette import BLUE, GREY, ORANGE
from lightning_metatok.probes.base import Finding, Probe, Subject
from lightning_metatok.probes.drawing import put_title
from lightning_metatok.probes.inside import inside, preceding

KINDS = {"state": "states", "embedding": "mark's state, token's embedding", "value": "value vectors"}
MOST = 2048
"""Pairs of a mean, at most."""


class Key(NamedTuple):
    """A mean: of what, entering which layer, how many tokens before the mark."""

    kind: str
    layer: int
    distance: int


class Cosine(Probe):
    """Cosine between marks and the source tokens before them."""

    name = "cosine"
    question = "how alike are marks and the tokens before them, against two nulls?"
    needs_meta_tokens = True

    def __init__(self, layers: list[int] | None = None, furthest: int = 12, permutations: int = 100) -> None:
        """Describe the probe.

        Args:
            layers: Layers whose entering states are compared; null: all.
            furthest: Source tokens before a mark that are looked at.
            permutations: Draws of the null.
        """
        self.layers, self.furthest, self.permutations = layers, furthest, permutations

    def check(self, subject: Subject) -> None:
        """Layers that exist, positive numbers."""
        subject.need_layers(self.name, self.layers)
        for key in ("furthest", "permutations"):
            least = 1 if key == "furthest" else 100
            if getattr(self, key) < least:
                raise UserError(f"probe.{self.name}.{key}={getattr(self, key)}: expected {least} or more")

    def run(self, subject: Subject) -> list[Finding]:
        """Compare."""
        layers = subject.need_layers(self.name, self.layers)
        pairs = self._pairs(subject, layers)
        rng = np.random.default_rng(subject.seed)
        rows = []
        for done, (key, (marks, tokens)) in enumerate(pairs.items()):
            subject.progress("cosine nulls", done, len(pairs))
            found = cosine_test(marks, tokens, rng, self.permutations)
            outside = not found.null_low <= found.mean <= found.null_high
            rows.append({**key._asdict(), "n": len(marks), **found._asdict(), "outside_null": outside})
        table = DataFrame(rows)
        excess = (table["mean"] - table.null_mean).abs()
        most = table.loc[excess.idxmax()]
        says = (
            f"marks are at most {excess.max():.2f} more alike to the tokens before them than to other prompts' "
            f"({most.kind}s into layer {most.layer}, {most.distance} back)"
        )
        return [Finding(self.name, table, _figure(table, f"{subject.label}: {says}"), says)]

    def _pairs(self, subject: Subject, layers: list[int]) -> dict[Key, tuple[Tensor, Tensor]]:
        found: dict[Key, list[tuple[Tensor, Tensor]]] = {}
        for batch, recording in inside(subject, self.name):
            places = preceding(batch, self.furthest)
            embedding_BTD = subject.model.embedding.weight.detach()[batch.tokens_BT]
            for distance in range(1, self.furthest + 1):
                place_BT = places[distance - 1]
                b, t = torch.nonzero(batch.meta_mask_BT & (place_BT >= 0), as_tuple=True)
                before = place_BT[b, t]
                for layer in layers:
                    record = recording.layers[layer]
                    state, value = record.before_BTD, record["self_attention"].values_BTD
                    assert value is not None, "self-attention has value vectors"
                    for kind, marks, tokens in (
                        ("state", state[b, t], state[b, before]),
                        ("embedding", state[b, t], embedding_BTD[b, before]),
                        ("value", value[b, t], value[b, before]),
                    ):
                        found.setdefault(Key(kind, layer, distance), []).append((marks.cpu(), tokens.cpu()))
        together = {key: tuple(torch.cat(x)[:MOST] for x in zip(*parts, strict=True)) for key, parts in found.items()}
        return {key: (marks, tokens) for key, (marks, tokens) in together.items() if len(marks) > 1}


def _figure(table: DataFrame, title: str) -> Figure:
    figure = Figure(figsize=(9.6, 4.8), dpi=150, layout="constrained")
    panels = figure.subplots(2, len(KINDS), sharex=True)
    excess = table["mean"] - table.null_mean
    reach = float(excess.abs().max()) or 1.0
    image = None
    for column, (kind, label) in enumerate(KINDS.items()):
        rows = table[table.kind == kind]
        layers = sorted(set(rows.layer))
        grid = rows.assign(excess=excess[rows.index]).pivot(index="layer", columns="distance", values="excess")
        inside_null = rows.pivot(index="layer", columns="distance", values="outside_null") == False  # noqa: E712
        top, bottom = panels[:, column]
        extent = (0.5, grid.shape[1] + 0.5, -0.5, len(layers) - 0.5)
        image = top.imshow(grid, cmap="PuOr", vmin=-reach, vmax=reach, aspect="auto", origin="lower", extent=extent)
        for y, x in zip(*np.nonzero(inside_null.to_numpy()), strict=True):
            top.plot(x + 1, y, "x", color="0.4", markersize=3)
        top.set_yticks(range(len(layers)), layers, fontsize=7)
        top.set_title(label, fontsize=9)
        strongest = rows.loc[excess[rows.index].abs().idxmax()].layer
        one = rows[rows.layer == strongest]
        null = "tokens of other prompts (mean, 95 %)"
        bottom.fill_between(one.distance, one.null_low, one.null_high, color=GREY, alpha=0.4, lw=0)
        bottom.plot(one.distance, one.null_mean, ":", color=GREY, linewidth=1.2, label=null)
        reach_d, nowhere = one.random_half_width, "random directions (95 %)"
        bottom.fill_between(one.distance, -reach_d, reach_d, color=BLUE, alpha=0.3, lw=0, label=nowhere)
        bottom.set_xticks(one.distance[:: max(1, len(one) // 6)])
        bottom.plot(one.distance, one["mean"], "o-", color=ORANGE, markersize=3, label="tokens before the mark")
        bottom.set_title(f"into layer {strongest}", fontsize=8)
        bottom.set_xlabel("source tokens before the mark", fontsize=8)
        bottom.tick_params(labelsize=7)
        bottom.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_ylabel("layer", fontsize=8)
    panels[1, 0].set_ylabel("mean cosine", fontsize=8)
    handles, labels = panels[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=7)
    assert image is not None
    bar = figure.colorbar(image, ax=list(panels[0]), pad=0.01, fraction=0.03)
    bar.set_label("cosine beyond other prompts'\n(x: not beyond its 95 %)", fontsize=7)
    bar.ax.tick_params(labelsize=7)
    put_title(figure, title)
    return figure
