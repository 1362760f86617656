"""Patching: put what the model holds at some places of one prompt into another that differs in one list only.

    donor      L0 M a4 a7 M  L9 M a3 a0 M  ? L9 2   a0          the state that enters layer 2 at the closing mark
    receiver   L0 M a4 a7 M  L9 M a1 a5 M  ? L9 2   a5          ... goes here: is the answer a0 now?
                                         ^

Places that HOLD the list make the answer follow the donor. At layer 0 only the list itself can: nothing has been read
yet. Where the answer follows from the marks in some layer, they hold it there; where it follows the question's own
places, it has arrived. Source: Meng et al. 2022, arXiv 2202.05262; Zhang & Nanda 2024, arXiv 2309.16042 (on measuring
log-probability differences beside accuracy).
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pandas import DataFrame
from torch import Tensor

from lightning_metatok.analysis.statistics import paired_bootstrap, wilson_interval
from lightning_metatok.data import Batch
from lightning_metatok.lit.answers.figures import GREEN, PINK, YELLOW
from lightning_metatok.model import MetaTransformer
from lightning_metatok.model.interventions import Intervention, Patch, intervened
from lightning_metatok.model.recording import recorded
from lightning_metatok.palette import BLUE, GREY, ORANGE, SKY
from lightning_metatok.probes.base import Finding, Probe, Subject
from lightning_metatok.probes.drawing import put_title
from lightning_metatok.probes.places import Places, located
from lightning_metatok.probes.subject import ROWS
from lightning_metatok.probes.trials import LEAST
from lightning_metatok.tasks.pairs import make_pairs, why_no_pairs

Pick = Callable[[Places], Tensor]

GROUPS: dict[str, tuple[str, Pick, bool, str, str]] = {
    # name: (label, places, whether they are marks, colour, marker)
    "opening": ("opening mark of the list", lambda p: p.opening_BT, True, YELLOW, "^"),
    "closing": ("closing mark of the list", lambda p: p.closing_BT, True, ORANGE, "v"),
    "marks": ("all marks", lambda p: p.meta_BT, True, PINK, "D"),
    "list": ("the list's own tokens", lambda p: p.target_BT, False, BLUE, "o"),
    "rest": ("the rest of the prompt", lambda p: p.body_BT & ~p.target_BT & ~p.meta_BT, False, GREY, "X"),
    "question": ("the question", lambda p: p.question_BT & ~p.last_BT, False, SKY, "P"),
    "last": ("where the answer is predicted", lambda p: p.last_BT, False, GREEN, "s"),
}


class Patching(Probe):
    """Swap states between two prompts that differ in one list."""

    name = "patching"
    question = "whose state takes the answer along into another prompt?"
    intervenes = True
    needs_task = True

    def __init__(self, layers: list[int] | None = None) -> None:
        """Describe the probe.

        Args:
            layers: Layers whose entering states are swapped; null: all.
        """
        self.layers = layers

    def cannot(self, subject: Subject) -> str | None:
        """The task must give paired prompts."""
        reason = super().cannot(subject)
        return reason or why_no_pairs(subject.data.evaluation_task())  # type: ignore[union-attr]

    def check(self, subject: Subject) -> None:
        """Layers that exist, prompts enough."""
        subject.need_layers(self.name, self.layers)
        subject.need_examples(self.name, LEAST)

    def run(self, subject: Subject) -> list[Finding]:
        """Swap, one group of places and one layer at a time."""
        layers = subject.need_layers(self.name, self.layers)
        groups = {name: g for name, g in GROUPS.items() if subject.has_meta_tokens or not g[2]}
        gaps, says = _swap(subject, groups, layers)
        table = DataFrame(
            [
                _row(group, groups[group][0], layer, gaps[group, layer], says[group, layer], gaps[_NONE], says[_NONE])
                for group in groups
                for layer in layers
            ]
        )
        line = _finding(table)
        left_out = "" if subject.has_meta_tokens else "; there are no marks to patch"
        return [Finding(self.name, table, _figure(table, f"{subject.label}: {line}"), line + left_out)]


_NONE = ("none", -1)
Key = tuple[str, int]


def _swap(
    subject: Subject, groups: dict[str, Any], layers: list[int]
) -> tuple[dict[Key, np.ndarray], dict[Key, np.ndarray]]:
    """For each group and layer, of each receiver: log p(donor's answer) - log p(its own), and whether it says the
    donor's answer; under `_NONE` those of the receivers as they are."""
    task = subject.data.evaluation_task()  # type: ignore[union-attr]
    receivers, donors = make_pairs(task, subject.n_examples, subject.seed)
    gaps: dict[Key, list[np.ndarray]] = {}
    says: dict[Key, list[np.ndarray]] = {}
    pairs = zip(located(receivers, ROWS, subject.device), located(donors, ROWS, subject.device), strict=True)
    n_batches = -(-len(receivers) // ROWS)
    for done, ((receiver, places), (donor, _)) in enumerate(pairs):
        subject.progress("patching", done, n_batches)
        with torch.no_grad(), recorded(subject.model, attention=False) as recording:
            subject.model(donor.tokens_BT, donor.meta_mask_BT, donor.position_ids_BT)
        trials: dict[Key, Intervention | None] = {_NONE: None}
        for name, group in groups.items():
            rows_BT = group[1](places)
            for layer in layers:
                trials[name, layer] = Intervention({layer: Patch(rows_BT, recording.layers[layer].before_BTD)})
        for key, intervention in trials.items():
            gap, said = preference(subject.model, receiver, donor, intervention)
            gaps.setdefault(key, []).append(gap)
            says.setdefault(key, []).append(said)
    return ({k: np.concatenate(v) for k, v in gaps.items()}, {k: np.concatenate(v) for k, v in says.items()})


@torch.no_grad()
def preference(
    model: MetaTransformer, receiver: Batch, donor: Batch, intervention: Intervention | None
) -> tuple[np.ndarray, np.ndarray]:
    """For each receiver: log p(donor's token) - log p(its own), in nats, and whether the donor's is the likeliest one.

    Both where their answers first differ: up to there both read the same answer.
    """
    differs_BT = (receiver.targets_BT != donor.targets_BT) & (receiver.targets_BT >= 0)
    assert bool(differs_BT.any(dim=1).all()), "paired prompts have different answers"
    at_B = differs_BT.int().argmax(dim=1)
    row_B = torch.arange(len(at_B), device=at_B.device)
    with nullcontext() if intervention is None else intervened(model, intervention):
        hidden_BTD = model(receiver.tokens_BT, receiver.meta_mask_BT, receiver.position_ids_BT, return_hidden=True)
    logits_BV = model.logits(hidden_BTD[row_B, at_B]).double()
    own_B, other_B = receiver.targets_BT[row_B, at_B], donor.targets_BT[row_B, at_B]
    gap_B = logits_BV[row_B, other_B] - logits_BV[row_B, own_B]
    return gap_B.cpu().numpy(), (logits_BV.argmax(dim=1) == other_B).cpu().numpy()


def _row(
    group: str, label: str, layer: int, gap: np.ndarray, says: np.ndarray, gap0: np.ndarray, says0: np.ndarray
) -> dict[str, Any]:
    low, high = wilson_interval(int(says.sum()), len(says))
    followed, moved = paired_bootstrap(says, says0), paired_bootstrap(gap, gap0)
    return {
        "group": group,
        "label": label,
        "layer": layer,
        "n": len(says),
        "follows": float(says.mean()),
        "follows_low": float(low),
        "follows_high": float(high),
        "follows_unpatched": float(says0.mean()),
        **{f"follows_change{end}": x for end, x in zip(("", "_low", "_high"), followed, strict=True)},
        "gap_unpatched": float(gap0.mean()),
        **{f"gap_change{end}": x for end, x in zip(("", "_low", "_high"), moved, strict=True)},
    }


def _finding(table: DataFrame) -> str:
    most = {group: f"{100 * rows.follows.max():.0f} %" for group, rows in table.groupby("group")}
    line = f"swapped in some layer, the list's own tokens take the answer along in {most['list']} of pairs"
    return f"{line}, its marks in {most['marks']}" if "marks" in most else line


def _figure(table: DataFrame, title: str) -> Figure:
    figure = Figure(figsize=(8.4, 3.9), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    for group, rows in table.groupby("group", sort=False):
        label, _, _, colour, marker = GROUPS[str(group)]
        for axes, column in ((left, "follows"), (right, "gap_change")):
            axes.fill_between(rows.layer, rows[f"{column}_low"], rows[f"{column}_high"], color=colour, alpha=0.2, lw=0)
            axes.plot(rows.layer, rows[column], color=colour, marker=marker, fillstyle="none", label=label)
    left.axhline(float(table.follows_unpatched.iloc[0]), color=GREY, linestyle=":", label="nothing patched")
    left.set_ylim(-0.03, 1.03)
    left.set_ylabel("answers that follow the donor (share of pairs)", fontsize=8)
    right.axhline(0, color=GREY, linestyle=":")
    right.set_ylabel("change of log p(donor's) - log p(own) (nats)", fontsize=8)
    for axes in (left, right):
        axes.set_xticks(sorted(set(table.layer)))
        axes.set_xlabel("layer that the swapped state enters", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    put_title(figure, title, f"{int(table.n.iloc[0])} pairs of prompts; bands: 95 % intervals")
    return figure
