"""Trials: prompts asked as they are, and again with one thing changed inside; what an answer lost is what that gave it.

Every trial asks the SAME prompts in the same order, so that differences are taken prompt by prompt: mean change of the
answer's log-probability and of exact answers, each with a paired bootstrap interval.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pandas import DataFrame, Series
from torch import Tensor

from lightning_metatok.analysis.statistics import paired_bootstrap, wilson_interval
from lightning_metatok.data import Batch
from lightning_metatok.model import MetaTransformer
from lightning_metatok.model.interventions import Intervention, intervened
from lightning_metatok.palette import BLUE, ORANGE
from lightning_metatok.probes.base import Subject
from lightning_metatok.probes.drawing import put_title
from lightning_metatok.probes.places import Places, with_places

INTACT = "intact"
LEAST = 30
"""Prompts that an interval of a share is drawn for, at least."""


@dataclass(frozen=True)
class Trial:
    """One thing that is changed.

    Attributes:
        name: in the CSV. label: in the figure.
        change: the intervention for a batch, given its places.
    """

    name: str
    label: str
    change: Callable[[Places], Intervention]


@dataclass(frozen=True)
class Outcome:
    """Log-probability of each prompt's whole answer, in nats, and whether it is right (teacher forcing), [n] each."""

    logprob_n: NDArray[np.float64]
    right_n: NDArray[np.bool_]


def blocked(query_BT: Tensor, key_BT: Tensor) -> Tensor:
    """Which pairs are left, bool [B, T, T], when these queries may not see these keys."""
    return ~(query_BT.unsqueeze(2) & key_BT.unsqueeze(1))


def evicted(places: Places, kept_BT: Tensor) -> Tensor:
    """Which pairs are left when, before the question is read, only `kept_BT` of the body stays in the cache."""
    return ~(places.question_BT.unsqueeze(2) & (places.body_BT & ~kept_BT).unsqueeze(1))


@torch.no_grad()
def ask(model: MetaTransformer, batch: Batch, intervention: Intervention | None = None) -> Outcome:
    """What `model` gives the answers of a batch."""
    with nullcontext() if intervention is None else intervened(model, intervention):
        hidden_BTD = model(batch.tokens_BT, batch.meta_mask_BT, batch.position_ids_BT, return_hidden=True)
    rows_K, at_K = torch.nonzero(batch.targets_BT >= 0, as_tuple=True)
    target_K = batch.targets_BT[rows_K, at_K]
    logits_KV = model.logits(hidden_BTD[rows_K, at_K]).float()
    logprob_K = logits_KV.log_softmax(dim=-1).gather(1, target_K[:, None])[:, 0].double()
    logprob_B = torch.zeros(len(batch.tokens_BT), dtype=torch.float64, device=logits_KV.device)
    logprob_B.index_add_(0, rows_K, logprob_K)
    wrong_B = torch.zeros_like(logprob_B).index_add_(0, rows_K, (logits_KV.argmax(dim=1) != target_K).double())
    return Outcome(logprob_B.cpu().numpy(), (wrong_B == 0).cpu().numpy())


def run_trials(subject: Subject, trials: Sequence[Trial], what: str) -> DataFrame:
    """Ask all prompts of `subject` intact and in every trial; one row each, see `compare`."""
    asked: dict[str, list[Outcome]] = {INTACT: [], **{trial.name: [] for trial in trials}}
    for done, (batch, places) in enumerate(with_places(subject)):
        subject.progress(what, done, len(subject.batches))
        asked[INTACT].append(ask(subject.model, batch))
        for trial in trials:
            asked[trial.name].append(ask(subject.model, batch, trial.change(places)))
    outcomes = {
        name: Outcome(np.concatenate([x.logprob_n for x in parts]), np.concatenate([x.right_n for x in parts]))
        for name, parts in asked.items()
    }
    labels = {INTACT: INTACT, **{trial.name: trial.label for trial in trials}}
    return DataFrame([compare(name, labels[name], outcome, outcomes[INTACT]) for name, outcome in outcomes.items()])


def compare(
    name: str,
    label: str,
    outcome: Outcome,
    intact: Outcome,
) -> dict[str, object]:
    """A row: accuracy (Wilson), and the changes against `intact` (paired bootstrap); log-probabilities in nats."""
    n, right = len(outcome.right_n), int(outcome.right_n.sum())
    low, high = wilson_interval(right, n)
    accuracy = paired_bootstrap(outcome.right_n, intact.right_n)
    logprob = paired_bootstrap(outcome.logprob_n, intact.logprob_n)
    return {
        "trial": name,
        "label": label,
        "n": n,
        "accuracy": right / n,
        "accuracy_low": float(low),
        "accuracy_high": float(high),
        "logprob": float(outcome.logprob_n.mean()),
        **{f"accuracy_change{end}": x for end, x in zip(("", "_low", "_high"), accuracy, strict=True)},
        **{f"logprob_change{end}": x for end, x in zip(("", "_low", "_high"), logprob, strict=True)},
    }


def row_of(table: DataFrame, trial: str) -> dict[str, float]:
    """The numbers of one trial."""
    return dict(table[table.trial == trial].iloc[0])


def worst_of(table: DataFrame) -> Series:
    """The row of the trial that costs the most exact answers."""
    return table.loc[table.accuracy_change.iloc[1:].idxmin()]


def trials_figure(table: DataFrame, title: str) -> Figure:
    """Each trial a line: exact answers on the left, what the answer's log-probability changed by on the right."""
    n_rows = len(table)
    figure = Figure(figsize=(8.4, 1.3 + 0.27 * n_rows), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    colours = [BLUE if trial == INTACT else ORANGE for trial in table.trial]
    _draw(left, table, "accuracy", colours)
    _draw(right, table, "logprob_change", colours)
    left.axvline(float(table.accuracy.iloc[0]), color=BLUE, linestyle=":", linewidth=1)
    left.set_xlim(-0.02, 1.02)
    left.set_yticks(range(n_rows), list(table.label), fontsize=8)
    left.invert_yaxis()
    left.set_xlabel("exact answers (share of prompts)", fontsize=8)
    right.axvline(0, color=BLUE, linestyle=":", linewidth=1)
    right.set_xlabel("change of the answer's log-probability (nats)", fontsize=8)
    n = int(table.n.iloc[0])
    put_title(figure, title)
    figure.supxlabel(f"{n} held-out prompts; bars: 95 % intervals (Wilson; paired bootstrap)", fontsize=7)
    return figure


def _draw(axes: Axes, table: DataFrame, column: str, colours: Sequence[str]) -> None:
    for y, (_, row) in enumerate(table.iterrows()):
        axes.plot([row[f"{column}_low"], row[f"{column}_high"]], [y, y], color=colours[y], linewidth=2)
        axes.plot(row[column], y, "o", color=colours[y], markersize=5)
    axes.grid(axis="x", color="0.9")
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
