"""Lens: what the model would say if it stopped at a layer, and how far that is from what it says in the end.

The logit lens reads a state with the final norm and head; the tuned lens may first change its basis (one affine map a
layer, trained on half of the prompts). Both are judged on the other half, at marks, at source tokens, and where the
answer is predicted.
"""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pandas import DataFrame
from torch import Tensor

from lightning_metatok.analysis.lens import kl_to_end, train_translator
from lightning_metatok.errors import UserError
from lightning_metatok.palette import BLUE, GREY, ORANGE
from lightning_metatok.probes.base import Finding, Probe, Subject
from lightning_metatok.probes.drawing import put_title
from lightning_metatok.probes.inside import by_prompt, inside, mean_interval, real_BT
from lightning_metatok.probes.trials import LEAST

NEAR = 0.1
"""Nats from the end that count as there."""
KINDS = ("marks", "source tokens", "where the answer is predicted")


class Lens(Probe):
    """KL from the end of the logit lens and of the tuned lens."""

    name = "lens"
    question = "where along the layers is what the model will say?"

    def __init__(self, layers: list[int] | None = None, steps: int = 300) -> None:
        """Describe the probe.

        Args:
            layers: Layers whose entering states are read; null: all.
            steps: Training steps of each tuned lens.
        """
        self.layers, self.steps = layers, steps

    def check(self, subject: Subject) -> None:
        """Layers that exist, and prompts enough for both halves."""
        subject.need_layers(self.name, self.layers)
        subject.need_examples(self.name, 2 * LEAST, "an interval on half of them")
        if self.steps < 1:
            raise UserError(f"probe.{self.name}.steps={self.steps}: expected 1 or more")

    def run(self, subject: Subject) -> list[Finding]:
        """Read."""
        layers = subject.need_layers(self.name, self.layers)
        states, end_RD, row_R, kinds = self._collect(subject, layers)
        with torch.no_grad():
            end_RV = subject.model.logits(end_RD)
        train_R = torch.from_numpy(np.random.default_rng(subject.seed).random(subject.n_examples) < 0.5)[row_R.cpu()]
        train_R = train_R.to(end_RV.device)
        rows: list[dict[str, Any]] = []
        frozen = [parameter for parameter in subject.model.parameters() if parameter.requires_grad]
        try:
            for parameter in frozen:
                parameter.requires_grad_(False)
            for done, layer in enumerate(layers):
                subject.progress(self.name, done, len(layers))
                rows += self._read(subject, layer, states[layer], end_RV, row_R, train_R, kinds)
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)
        table = DataFrame(rows)
        says = _says(table)
        return [Finding(self.name, table, _figure(table, f"{subject.label}: {says}"), says)]

    def _collect(
        self, subject: Subject, layers: list[int]
    ) -> tuple[dict[int, Tensor], Tensor, Tensor, dict[str, Tensor]]:
        """States of all real tokens by layer, the hidden states at the end, their prompts, and which are of a kind."""
        states: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        ends, rows, start = [], [], 0
        kinds: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
        for batch, recording in inside(subject, self.name):
            real = real_BT(batch)
            assert recording.hidden_BTD is not None
            ends.append(recording.hidden_BTD[real])
            rows.append(torch.nonzero(real)[:, 0] + start)
            start += len(real)
            for layer in layers:
                states[layer].append(recording.layers[layer].before_BTD[real])
            answers = batch.targets_BT >= 0 if subject.examples is not None else torch.zeros_like(real)
            for kind, where in zip(KINDS, (batch.meta_mask_BT, ~batch.meta_mask_BT, answers), strict=True):
                kinds[kind].append(where[real])
        together = {layer: torch.cat(parts) for layer, parts in states.items()}
        masks = {kind: torch.cat(parts) for kind, parts in kinds.items()}
        return together, torch.cat(ends), torch.cat(rows), {kind: mask for kind, mask in masks.items() if mask.any()}

    def _read(
        self,
        subject: Subject,
        layer: int,
        states_RD: Tensor,
        end_RV: Tensor,
        row_R: Tensor,
        train_R: Tensor,
        kinds: dict[str, Tensor],
    ) -> list[dict[str, Any]]:
        model = subject.model

        def readout(x: Tensor) -> Tensor:
            return model.logits(model.norm(x))

        rows = []
        for kind, mask_R in kinds.items():
            fit, judged = train_R & mask_R, ~train_R & mask_R
            tuned = train_translator(states_RD[fit], end_RV[fit], readout, steps=self.steps, seed=subject.seed)
            with torch.no_grad():
                for lens, x_RD in (("logit lens", states_RD[judged]), ("tuned lens", tuned(states_RD[judged]))):
                    kl_R = kl_to_end(end_RV[judged], readout(x_RD)).double().cpu().numpy()
                    mean = mean_interval(by_prompt(kl_R, row_R[judged].cpu().numpy()))
                    row = {"layer": layer, "lens": lens, "tokens": kind, "n": len(kl_R)}
                    rows.append({**row, "kl": mean.mean, "kl_low": mean.low, "kl_high": mean.high})
        return rows


def _says(table: DataFrame) -> str:
    tuned = table[table.lens == "tuned lens"]
    parts = []
    for kind in dict.fromkeys(tuned.tokens):
        near = tuned[(tuned.tokens == kind) & (tuned.kl < NEAR)]
        where = kind if kind.startswith("where") else f"at {kind}"
        parts.append(f"from layer {near.layer.min()} on {where}" if len(near) else f"from no layer on {where}")
    return f"a linear map reads what the model will say to {NEAR} nats {', '.join(parts)}"


def _figure(table: DataFrame, title: str) -> Figure:
    kinds = list(dict.fromkeys(table.tokens))
    figure = Figure(figsize=(1 + 2.7 * max(2, len(kinds)), 3.4), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        for lens, colour, marker in (("logit lens", BLUE, "o"), ("tuned lens", ORANGE, "s")):
            rows = table[(table.tokens == kind) & (table.lens == lens)]
            axes.fill_between(rows.layer, rows.kl_low, rows.kl_high, color=colour, alpha=0.2, lw=0)
            axes.plot(rows.layer, rows.kl, color=colour, marker=marker, fillstyle="none", label=lens)
        axes.axhline(NEAR, color=GREY, linestyle=":", linewidth=1)
        axes.set_title(kind, fontsize=9)
        axes.set_xticks(sorted(set(table.layer)))
        axes.set_xlabel("layer that the state enters", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.set_yscale("log")
        axes.grid(axis="y", color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("KL(end || lens), nats", fontsize=8)
    panels[0].legend(frameon=False, fontsize=7)
    put_title(figure, title, "prompts that no lens was trained on; bands: 95 % intervals")
    return figure
