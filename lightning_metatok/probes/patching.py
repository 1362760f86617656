"""Patching: put what the model holds at some places of one prompt into another that differs in one list only.

    donor      L0 M a4 a7 M  L9 M a3 a0 M  ? L9 2   a0          the state at the closing mark, as it enters layer 2
    receiver   L0 M a4 a7 M  L9 M a1 a5 M  ? L9 2   a5          ... goes here: is the answer a0 now?
                                         ^

Tokens that HOLD the list make the answer follow the donor. Each layer is asked at every place of its own: what enters
it, the stream behind each of its branches, the values of each of its attentions.

    before layer 0       of the list's own tokens: they ARE the other prompt. By construction this is how often the
                         model answers it right: the ceiling, no finding. All other tokens are the same in both prompts
    before layer 1, ...  what was handed on from layer to layer
    after a branch       what is handed on within a layer: a mark that reads its list in self-attention and is read in
                         the meta-attention behind it holds it there and nowhere else
    values               what others get from a token in one attention, whatever the token keeps

Where the answer follows from the marks at some place, they hold it there; where it follows from the question's own
tokens, it has arrived. Source: Meng et al. 2022, arXiv 2202.05262; Zhang & Nanda 2024, arXiv 2309.16042 (on measuring
log-probability differences beside accuracy).
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from lightning_metatok.analysis.statistics import paired_bootstrap, wilson_interval
from lightning_metatok.data import Batch
from lightning_metatok.model import MetaTransformer
from lightning_metatok.model.attention.layers import Attention
from lightning_metatok.model.block import Block
from lightning_metatok.model.branch import BEFORE, Place
from lightning_metatok.model.interventions import Intervention, Patch, intervened
from lightning_metatok.model.recording import recorded
from lightning_metatok.probes.base import Finding, Probe, Subject
from lightning_metatok.probes.patching_figure import patching_figure
from lightning_metatok.probes.places import Places, located
from lightning_metatok.probes.subject import ROWS
from lightning_metatok.probes.trials import LEAST
from lightning_metatok.tasks.pairs import make_pairs, why_no_pairs

Pick = Callable[[Places], Tensor]

GROUPS: dict[str, tuple[str, Pick, bool]] = {
    # name: (label, tokens, whether they are marks)
    "opening": ("opening mark of the list", lambda p: p.opening_BT, True),
    "closing": ("closing mark of the list", lambda p: p.closing_BT, True),
    "marks": ("all marks of the body", lambda p: p.marks_BT, True),
    "list": ("the list's own tokens", lambda p: p.target_BT, False),
    "rest": ("the rest of the prompt", lambda p: p.rest_BT, False),
    "question": ("the question", lambda p: p.question_BT & ~p.last_BT, False),
    "last": ("where the answer is predicted", lambda p: p.last_BT, False),
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
            layers: Layers whose states are swapped; null: all.
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
        """Swap, one group of tokens and one place at a time."""
        groups = {name: g for name, g in GROUPS.items() if subject.has_meta_tokens or not g[2]}
        sites = sites_of(subject, subject.need_layers(self.name, self.layers))
        gaps, says = _swap(subject, groups, sites)
        table = DataFrame(
            [
                _row(group, groups[group][0], site, gaps[group, site], says[group, site], gaps[_NONE], says[_NONE])
                for group in groups
                for site in sites
            ]
        )
        line = _finding(table)
        left_out = "" if subject.has_meta_tokens else "; there are no marks to patch"
        return [Finding(self.name, table, patching_figure(table, f"{subject.label}: {line}"), line + left_out)]


@dataclass(frozen=True)
class Site:
    """A place in a layer, and how tables call it."""

    layer: int
    place: Place
    label: str

    @property
    def is_start(self) -> bool:
        """Whether nothing has been read yet."""
        return self.layer == 0 and self.place == BEFORE


def sites_of(subject: Subject, layers: Sequence[int]) -> list[Site]:
    """All places of `layers` in their order; behind the last branch of a layer is before the next one."""
    model, sites = subject.model, []
    works = subject.has_meta_tokens or subject.config.built_mechanism.share(0.0) > 0
    for layer in layers:
        block = cast(Block, model.blocks[layer % len(model.blocks)])
        branches = [branch for branch in block.branches if works or not branch.added]
        attentions = [branch for branch in branches if isinstance(getattr(block, branch.module), Attention)]
        sites.append(Site(layer, BEFORE, "before"))
        sites += [Site(layer, Place(branch.name), f"after {branch.label}") for branch in branches[:-1]]
        sites += [Site(layer, Place(b.name, values=True), f"values of {b.label}") for b in attentions]
    return sites


_NONE = ("none", None)
Key = tuple[str, Site | None]


def _swap(
    subject: Subject, groups: dict[str, Any], sites: Sequence[Site]
) -> tuple[dict[Key, np.ndarray], dict[Key, np.ndarray]]:
    """For each group and site, of each receiver: log p(donor's answer) - log p(its own), and whether it says the
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
            for site in sites:
                states_BTD = recording.layers[site.layer].at(site.place)
                patch = None if states_BTD is None else Patch(rows_BT, states_BTD, site.place)
                trials[name, site] = None if patch is None else Intervention({site.layer: patch})
        for key, intervention in trials.items():
            gap, said = preference(subject.model, receiver, donor, intervention)
            gaps.setdefault(key, []).append(gap)
            says.setdefault(key, []).append(said)
    return ({k: np.concatenate(v) for k, v in gaps.items()}, {k: np.concatenate(v) for k, v in says.items()})


@torch.no_grad()
def preference(
    model: MetaTransformer,
    receiver: Batch,
    donor: Batch,
    intervention: Intervention | None,
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
    group: str, label: str, site: Site, gap: np.ndarray, says: np.ndarray, gap0: np.ndarray, says0: np.ndarray
) -> dict[str, Any]:
    low, high = wilson_interval(int(says.sum()), len(says))
    followed, moved = paired_bootstrap(says, says0), paired_bootstrap(gap, gap0)
    return {
        "group": group,
        "label": label,
        "layer": site.layer,
        "place": str(site.place),
        "where": f"layer {site.layer}, {site.label}",
        "ceiling": group == "list" and site.is_start,
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
    """Best places of the list's own tokens and of the marks; what follows by construction is no such place."""
    found = table[~table.ceiling]
    best = {str(group): rows.loc[rows.follows.idxmax()] for group, rows in found.groupby("group")}
    said = {group: f"{100 * row.follows:.0f} % of pairs ({row['where']})" for group, row in best.items()}
    line = f"swapped at its best place, the list's own tokens take the answer along in {said['list']}"
    if "marks" in said:
        line += f", its marks in {said['marks']}"
    top = table[table.ceiling]
    return line if top.empty else f"{line}; ceiling {100 * float(top.follows.iloc[0]):.0f} %"
