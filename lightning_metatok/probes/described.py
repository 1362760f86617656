"""Interventions as data: what is blocked, silenced or patched stands in a YAML, and each is asked of the same prompts.

    probe:
      described:
        trials:
          - {name: question cannot see the list, block: {queries: question, keys: target}}
          - {name: nor its marks, block: {queries: question, keys: [target, opening, closing], layers: [1]}}
          - {name: meta-attention adds nothing, silence: all}
          - {name: closing marks are empty, patch: {at: closing, layer: 1, states: zeros}}

block    queries may not use keys, in `layers` (all by default): pyvene's path, and that of Geva et al. 2023
silence  what the mechanism adds to these layers, or all, adds nothing
patch    rows of the residual stream that enters `layer`, by `states`: zeros, or the mean of a prompt's other rows

A place is one of `PLACES`, or a list of them. States of another prompt are what the probe `patching` puts there.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.model.interventions import Intervention, Patch
from lightning_metatok.probes.base import Finding, Probe, Subject
from lightning_metatok.probes.places import Places
from lightning_metatok.probes.trials import LEAST, Trial, blocked, run_trials, trials_figure, worst_of

PLACES: Mapping[str, Callable[[Places], Tensor]] = {
    "all": lambda p: torch.ones_like(p.meta_BT),
    "marks": lambda p: p.marks_BT,
    "opening": lambda p: p.opening_BT,
    "closing": lambda p: p.closing_BT,
    "other_marks": lambda p: p.other_meta_BT,
    "target": lambda p: p.target_BT,
    "body": lambda p: p.body_BT,
    "text": lambda p: p.text_BT,
    "rest": lambda p: p.rest_BT,
    "question": lambda p: p.question_BT,
    "last": lambda p: p.last_BT,
}
"""Places of a prompt by name; `places` draws them. `text` is the body without marks, `rest` that without the target."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "block": ("queries", "keys", "layers"),
    "silence": (),
    "patch": ("at", "layer", "states"),
}
"""What can be changed, and what says how."""
STATES = ("zeros", "mean")
ZERO = torch.zeros(())
"""States of any batch, on any device."""


class Described(Probe):
    """Ask with what a list of trials says changed, one at a time."""

    name = "described"
    question = "what is lost when this is blocked, silenced or patched? (as a YAML says)"
    intervenes = True
    needs_task = True

    def __init__(self, trials: list[dict[str, Any]] | None = None) -> None:
        """Describe the probe.

        Args:
            trials: What is changed, a mapping each: name, and block, silence or patch; see probes/described.py.
        """
        self.trials = trials

    def cannot(self, subject: Subject) -> str | None:
        """Something must be described."""
        if self.trials is None:
            return "probe.described.trials describes nothing; expected a list, as conf/probe/described.yaml has"
        return super().cannot(subject)

    def check(self, subject: Subject) -> None:
        """Every trial can be read, and its layers exist."""
        subject.need_examples(self.name, LEAST)
        self.read(subject)

    def run(self, subject: Subject) -> list[Finding]:
        """Ask with one trial's change at a time."""
        table = run_trials(subject, self.read(subject), self.name)
        worst = worst_of(table)
        says = f"{100 * table.accuracy.iloc[0]:.0f} % right intact, {100 * worst.accuracy:.0f} % with: {worst.label}"
        return [Finding(self.name, table, trials_figure(table, f"{subject.label}: {says}"), says)]

    def read(self, subject: Subject) -> list[Trial]:
        """The trials.

        Raises:
            UserError: one cannot be read; one line that names the key, the value and what was expected.
        """
        if not self.trials:
            raise UserError(f"probe.described.trials={self.trials}: expected a list with one trial at least")
        read: list[Trial] = []
        for number, said in enumerate(self.trials):
            key = f"probe.described.trials[{number}]"
            trial = trial_of(said, key, subject)
            if trial.name in {other.name for other in read}:
                raise UserError(f"{key}.name={trial.name}: expected different names")
            read.append(trial)
        return read


def trial_of(said: Mapping[str, Any], key: str, subject: Subject) -> Trial:
    """One trial of what a YAML says of it; `key` is where it stands. Raises UserError."""
    for one in said:
        if one not in ("name", *KINDS):
            raise UserError(f"{key}.{one}: expected name and one of {', '.join(KINDS)}{nearest(one, KINDS)}")
    kinds = [kind for kind in KINDS if kind in said]
    if len(kinds) != 1:
        raise UserError(f"{key}={dict(said)}: expected one of {', '.join(KINDS)}, and only one")
    (kind,) = kinds
    how, name = said[kind], said.get("name", f"{kind} {said[kind]}")
    if not isinstance(name, str) or not name or name == "intact":
        raise UserError(f"{key}.name={name}: expected a text other than intact")
    key = f"{key}.{kind}"
    if kind == "silence":
        layers = _silenced(how, key, subject)
        return Trial(name, name, lambda places: Intervention(silent=layers))
    if not isinstance(how, Mapping):
        raise UserError(f"{key}={how}: expected {', '.join(KINDS[kind])}")
    for one in how:
        if one not in KINDS[kind]:
            raise UserError(f"{key}.{one}: expected {', '.join(KINDS[kind])}{nearest(one, KINDS[kind])}")
    return _block(name, how, key, subject) if kind == "block" else _patch(name, how, key, subject)


def layers_of(said: Any, key: str, subject: Subject) -> list[int]:
    """Layers by number; None: all. Raises UserError where one does not exist."""
    there_are = subject.config.n_layers
    if said is None:
        return list(range(there_are))
    layers = said if isinstance(said, list) else [said]
    if not layers or not all(type(layer) is int and 0 <= layer < there_are for layer in layers):
        raise UserError(f"{key}={said}: expected layers from 0 to {there_are - 1}, or all")
    return layers


def _silenced(said: Any, key: str, subject: Subject) -> list[int]:
    """Layers that the mechanism adds something to; all of them for "all". Raises UserError where it adds nothing."""
    if said is None:
        raise UserError(f"{key}=null: expected layers from 0 to {subject.config.n_layers - 1}, or all")
    layers = layers_of(None if said == "all" else said, key, subject)
    added = [layer for layer in layers if subject.config.added(layer)]
    if not added or (said != "all" and added != layers):
        missing = next(layer for layer in layers if layer not in added)
        raise UserError(f"{key}={said}: the mechanism adds nothing to layer {missing}; expected one that it adds to")
    return added


def place_of(said: Any, key: str) -> Callable[[Places], Tensor]:
    """Rows [B, T] of a place, or of any of several. Raises UserError where there is no such place."""
    names = said if isinstance(said, list) else [said]
    for name in names:
        if not isinstance(name, str) or name not in PLACES:
            raise UserError(f"{key}={name}: expected one of {', '.join(PLACES)}{nearest(str(name), PLACES)}")
    if not names:
        raise UserError(f"{key}=[]: expected one place at least, of {', '.join(PLACES)}")
    picks = [PLACES[name] for name in names]
    return lambda places: torch.stack([pick(places) for pick in picks]).any(dim=0)


def _block(name: str, how: Mapping[str, Any], key: str, subject: Subject) -> Trial:
    queries, keys = place_of(how.get("queries", "all"), f"{key}.queries"), place_of(how.get("keys"), f"{key}.keys")
    layers = layers_of(how.get("layers"), f"{key}.layers", subject)
    return Trial(name, name, lambda p: Intervention(allowed_BTT=blocked(queries(p), keys(p)), layers=layers))


def _patch(name: str, how: Mapping[str, Any], key: str, subject: Subject) -> Trial:
    at = place_of(how.get("at"), f"{key}.at")
    layer = how.get("layer")
    if type(layer) is not int:
        raise UserError(f"{key}.layer={layer}: expected a layer from 0 to {subject.config.n_layers - 1}")
    layers_of(layer, f"{key}.layer", subject)
    states = how.get("states", "zeros")
    if states not in STATES:
        raise UserError(f"{key}.states={states}: expected one of {', '.join(STATES)}{nearest(str(states), STATES)}")

    def change(places: Places) -> Intervention:
        rows_BT = at(places)
        others_BT = (places.body_BT | places.question_BT) & ~rows_BT  # without the filling
        patch = MeanPatch(rows_BT, others_BT.unsqueeze(-1)) if states == "mean" else Patch(rows_BT, ZERO)
        return Intervention(patches={layer: patch})

    return Trial(name, name, change)


class MeanPatch(Patch):
    """The mean state of a sequence's other rows in place of states; `states_BTD` is 1 at those, [B, T, 1]."""

    def put(self, own_BTD: Tensor) -> Tensor:
        """The model's own states, the mean of the others at the rows."""
        other_BT1 = self.states_BTD.to(own_BTD.dtype)
        mean_B1D = (own_BTD * other_BT1).sum(dim=1, keepdim=True) / other_BT1.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.where(self.rows_BT.unsqueeze(-1), mean_B1D, own_BTD)
