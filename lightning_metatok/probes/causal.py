"""Do marks hold the context, or point to it? Three probes that take something away and ask again.

    knockout   marks that nobody may see, second attentions that add nothing         what is needed at all
    paths      pairs that may not see each other: question -> marks, -> the list     which way the answer comes
    eviction   what is left of the prompt when the question is read: marks alone,    whether marks can stand in
               the last tokens alone, both, as many random tokens as marks           for what they stand behind

A mark that CACHES its list lets the question do without the list: eviction down to the marks costs little, and the
question needs its path to the marks. A mark that merely POINTS is needed as long as the list is there, and useless
without it. Source: arXiv 2509.16278, its theorem 5.1 (compression) against its table 2 (positions dropped); method:
path blocking by masks, as in Geva et al. 2023, arXiv 2304.14767.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model.interventions import Intervention
from lightning_metatok.probes.base import Finding, Probe, Subject
from lightning_metatok.probes.places import Places
from lightning_metatok.probes.trials import LEAST, Trial, blocked, evicted, row_of, run_trials, trials_figure, worst_of

Pick = Callable[[Places], Tensor]


class Knockout(Probe):
    """Take single marks away as keys, and second attentions layer by layer."""

    name = "knockout"
    question = "which mark, which second attention is needed at all?"
    intervenes = True
    needs_task = True

    def __init__(self, layers: list[int] | None = None) -> None:
        """Describe the probe.

        Args:
            layers: Layers whose second attention is silenced one by one; null: all that have one.
        """
        self.layers = layers

    def cannot(self, subject: Subject) -> str | None:
        """Something must be there to be taken away."""
        reason = super().cannot(subject)
        if reason is None and not subject.has_meta_tokens and not _with_second(subject):
            return "the model has neither meta-tokens nor a second attention to knock out; expected one with either"
        return reason

    def check(self, subject: Subject) -> None:
        """Layers that exist and have a second attention, prompts enough."""
        subject.need_examples(self.name, LEAST)
        for layer in subject.need_layers(self.name, self.layers):
            if self.layers is not None and not subject.config.added(layer):
                raise UserError(f"probe.{self.name}.layers={self.layers}: layer {layer} has no second attention")

    def run(self, subject: Subject) -> list[Finding]:
        """Ask with one of them missing at a time."""
        trials: list[Trial] = []
        if subject.has_meta_tokens:
            trials += [
                _unseen("opening", "opening mark of the target", lambda p: p.opening_BT),
                _unseen("closing", "closing mark of the target", lambda p: p.closing_BT),
                _unseen("target_marks", "both marks of the target", _target_marks),
                _unseen("other_marks", "marks of other segments", lambda p: p.other_meta_BT),
                _unseen("all_marks", "all marks", _meta),
            ]
        layers = [i for i in subject.need_layers(self.name, self.layers) if subject.config.added(i)]
        over_all = subject.config.built_mechanism.share(0.0) > 0
        if layers and (subject.has_meta_tokens or over_all):
            kind = "second attention" if over_all else "meta-attention"
            trials.append(_silent("silent", f"{kind} silent, all layers", layers))
            trials += [_silent(f"silent_{i}", f"{kind} silent, layer {i}", [i]) for i in layers]
        table = run_trials(subject, trials, self.name)
        worst = worst_of(table)
        says = f"{_percent(table.accuracy.iloc[0])} right intact, {_percent(worst.accuracy)} with {worst.label}"
        return [Finding(self.name, table, trials_figure(table, f"{subject.label}: {says}"), says)]


class Paths(Probe):
    """Block attention between groups of places."""

    name = "paths"
    question = "which way does the answer come: which tokens must see which?"
    intervenes = True
    needs_task = True

    def __init__(self, layers: list[int] | None = None) -> None:
        """Describe the probe.

        Args:
            layers: Layers in which the paths are blocked; null: all.
        """
        self.layers = layers

    def check(self, subject: Subject) -> None:
        """Layers that exist, prompts enough."""
        subject.need_layers(self.name, self.layers)
        subject.need_examples(self.name, LEAST)

    def run(self, subject: Subject) -> list[Finding]:
        """Ask with each path blocked."""
        trials = [
            self._trial("question_target", "question -> the list asked about", _question, _target),
            self._trial("question_rest", "question -> the rest of the prompt", _question, _rest),
            self._trial("last_target", "last token -> the list asked about", _last, _target),
        ]
        if subject.has_meta_tokens:
            trials += [
                self._trial("question_marks", "question -> all marks", _question, _meta),
                self._trial("question_target_marks", "question -> marks of that list", _question, _target_marks),
                self._trial("question_both", "question -> that list and all marks", _question, _target_and_marks),
                self._trial("last_marks", "last token -> all marks", _last, _meta),
                self._trial("marks_target", "marks -> the list asked about", _meta, _target),
                self._trial("marks_rest", "marks -> the rest of the prompt", _meta, _rest),
                self._trial("marks_body", "marks -> all that is no mark", _meta, _source),
                self._trial("target_marks", "the list -> marks", _target, _meta),
            ]
        table = run_trials(subject, trials, self.name)
        to_list = row_of(table, "question_target")
        says = f"without question -> list {_percent(to_list['accuracy'])} right"
        if subject.has_meta_tokens:
            says += f", without question -> marks {_percent(row_of(table, 'question_marks')['accuracy'])}"
        says += f" (intact {_percent(row_of(table, 'intact')['accuracy'])})"
        return [Finding(self.name, table, trials_figure(table, f"{subject.label}: {says}"), says + _left_out(subject))]

    def _trial(self, name: str, label: str, queries: Pick, keys: Pick) -> Trial:
        return Trial(
            name,
            f"{label} blocked",
            lambda p: Intervention(allowed_BTT=blocked(queries(p), keys(p)), layers=self.layers),
        )


class Eviction(Probe):
    """Forget parts of the prompt before its question is read, as a cache that is too small would."""

    name = "eviction"
    question = "what can the question do without, if parts of the prompt are forgotten before it is read?"
    intervenes = True
    needs_task = True

    def __init__(self, windows: list[int] = [4, 8]) -> None:  # noqa: B006  (the CLI reads the default)
        """Describe the probe.

        Args:
            windows: Numbers of last tokens of the prompt's body that are kept, marks among them.
        """
        self.windows = windows

    def check(self, subject: Subject) -> None:
        """Windows that are some tokens, prompts enough."""
        if any(w < 1 for w in self.windows) or len(set(self.windows)) < len(self.windows):
            raise UserError(f"probe.{self.name}.windows={self.windows}: expected different numbers of tokens, from 1")
        subject.need_examples(self.name, LEAST)

    def run(self, subject: Subject) -> list[Finding]:
        """Ask with what is left."""
        trials = [_keeping("target", "the list asked about alone", _target)]
        trials += [_keeping(f"last_{w}", f"the last {w} tokens", _LastTokens(w)) for w in self.windows]
        if subject.has_meta_tokens:
            trials += [
                _keeping("marks", "marks alone", _meta),
                _keeping("target_marks", "marks of that list alone", _target_marks),
                *(
                    _keeping(f"marks_last_{w}", f"marks and the last {w} tokens", _LastTokens(w, marks=True))
                    for w in self.windows
                ),
                _keeping("random", "as many random tokens as marks", _RandomTokens(subject.seed)),
            ]
        trials.append(_keeping("nothing", "nothing", lambda p: torch.zeros_like(p.body_BT)))
        table = run_trials(subject, trials, self.name)
        table.loc[0, "label"] = "everything kept"
        nothing, full = row_of(table, "nothing"), row_of(table, "intact")
        if subject.has_meta_tokens:
            marks, random = row_of(table, "marks"), row_of(table, "random")
            says = (
                f"marks alone keep {_percent(marks['accuracy'])} right, as many random tokens "
                f"{_percent(random['accuracy'])}, nothing {_percent(nothing['accuracy'])}, "
                f"all {_percent(full['accuracy'])}"
            )
        else:
            target = row_of(table, "target")
            says = (
                f"the list alone keeps {_percent(target['accuracy'])} right, nothing {_percent(nothing['accuracy'])}, "
                f"all {_percent(full['accuracy'])}"
            )
        figure = trials_figure(table, f"{subject.label}: {says}")
        return [Finding(self.name, table, figure, says + _left_out(subject))]


class _LastTokens:
    """The last `w` tokens of each body, and all `marks`."""

    def __init__(self, w: int, *, marks: bool = False) -> None:
        self.w, self.marks = w, marks

    def __call__(self, places: Places) -> Tensor:
        behind_BT = places.body_BT.flip(1).cumsum(dim=1).flip(1)
        last_BT = places.body_BT & (behind_BT <= self.w)
        return last_BT | places.marks_BT if self.marks else last_BT


class _RandomTokens:
    """As many tokens of the body that are no marks as there are marks; other ones in each batch, always the same."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def __call__(self, places: Places) -> Tensor:
        key_BT = torch.from_numpy(self.generator.random(tuple(places.body_BT.shape))).to(places.body_BT.device)
        key_BT = key_BT.masked_fill(~places.body_BT | places.meta_BT, 2.0)
        rank_BT = key_BT.argsort(dim=1).argsort(dim=1)
        return (rank_BT < places.marks_BT.sum(dim=1, keepdim=True)) & (key_BT < 2.0)


def _with_second(subject: Subject) -> bool:
    """Whether a mechanism adds branches that could be knocked out."""
    return any(subject.config.added(layer) for layer in range(subject.config.n_layers))


def _keeping(name: str, label: str, kept: Pick) -> Trial:
    return Trial(name, f"kept: {label}", lambda p: Intervention(allowed_BTT=evicted(p, kept(p))))


def _unseen(name: str, label: str, keys: Pick) -> Trial:
    def change(p: Places) -> Intervention:
        return Intervention(allowed_BTT=blocked(torch.ones_like(p.meta_BT), keys(p)))

    return Trial(name, f"{label} unseen by all", change)


def _silent(name: str, label: str, layers: list[int]) -> Trial:
    return Trial(name, label, lambda p: Intervention(silent=layers))


def _question(p: Places) -> Tensor:
    return p.question_BT


def _last(p: Places) -> Tensor:
    return p.last_BT


def _meta(p: Places) -> Tensor:
    return p.marks_BT


def _target(p: Places) -> Tensor:
    return p.target_BT


def _target_marks(p: Places) -> Tensor:
    return p.opening_BT | p.closing_BT


def _target_and_marks(p: Places) -> Tensor:
    return p.target_BT | p.marks_BT


def _rest(p: Places) -> Tensor:
    return p.rest_BT


def _source(p: Places) -> Tensor:
    return p.text_BT


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _left_out(subject: Subject) -> str:
    return "" if subject.has_meta_tokens else "; rows about marks are left out, as there are none"
