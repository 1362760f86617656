"""The finding in words: which condition leads at the trained and at the longest length, and how sure that is."""

import math
from collections.abc import Mapping, Sequence

from lightning_metatok.report.budgets import Estimate
from lightning_metatok.report.contrasts import Contrast, against, contrast_axis
from lightning_metatok.report.lengths import Question
from lightning_metatok.report.runs import Condition
from lightning_metatok.report.study import Study, label

MOST_NAMES = 4
"""That a sentence lists; more are counted."""

Means = Mapping[tuple[Condition, str, float | None], Estimate]


def finding(study: Study, question: Question, means: Means, contrasts: Sequence[Contrast]) -> str:
    """Return a sentence a length."""
    if question.higher_is_better is None:
        return f"Of `{question.quantity}` nobody knows whether more is better: the figure shows it."
    places = list(dict.fromkeys((question.places[0], question.places[-1])))
    if contrast_axis(study) is None:
        parts = [leader(study, question, means, place) for place in places]
    else:
        parts = [split(study, question, means, contrasts, place) for place in places]
    texts = [f"{part[:1].upper()}{part[1:]}." for part in parts if part]
    return " ".join(texts) or "No two conditions can be compared."


def leader(study: Study, question: Question, means: Means, at: float | None) -> str:
    """Say who is best at a length, and which others are told apart from it."""
    known = {c: means[key].mean for c in study.conditions if (key := (c, question.as_trained(c), at)) in means}
    best = question.best(known)
    if best is None:
        return ""
    head = f"{place(at)}**{best.label}**"
    value = interval(means[best, question.as_trained(best), at], question)
    if len(known) == 1:
        return f"{head} alone was measured: {value}"
    found = against(best, [condition for condition in known if condition is not best], question, at)
    worse = [contrast.b.label for contrast in found if contrast.is_sure]
    unsure = [contrast.b.label for contrast in found if contrast.by and not contrast.is_sure]
    unknown = [contrast.b.label for contrast in found if not contrast.by]
    parts = []
    if worse:
        parts.append(f"beyond chance better than {_names(worse, len(found))}")
    if unsure:
        parts.append(f"not told apart from {_names(unsure, len(found))}")
    if unknown:
        parts.append(f"with one seed, nothing is known of {_names(unknown, len(found))}")
    return f"{head} is best ({value}): {'; '.join(parts)}"


def split(study: Study, question: Question, means: Means, contrasts: Sequence[Contrast], at: float | None) -> str:
    """Say with which values of the other axes one value of an axis beats another, at a length."""
    axis = contrast_axis(study)
    assert axis is not None
    texts = []
    here = [contrast for contrast in contrasts if contrast.at == at]
    kinds = list(dict.fromkeys((str(c.a.axes[axis]), str(c.b.axes[axis])) for c in here))
    for a, b in kinds:
        of_kind = [c for c in here if (str(c.a.axes[axis]), str(c.b.axes[axis])) == (a, b)]
        sides: dict[str, list[str]] = {}
        parts = []
        for contrast in of_kind:
            said = verdict(contrast, question)
            if contrast.is_average:
                parts.append(f"on average {said} ({interval(contrast.difference, question, signed=True)})")
                continue
            rest = label({key: value for key, value in contrast.a.axes.items() if key != axis})
            sides.setdefault(said, []).append(rest)
        n = sum(map(len, sides.values()))
        parts += [f"{said} with {_names(names, n, f'all {n}')}" for said, names in sides.items()]
        texts.append(f"**{a}** against **{b}**: {', '.join(parts)}")
    known = {c: means[key].mean for c in study.conditions if (key := (c, question.as_trained(c), at)) in means}
    best = question.best(known)
    if best is not None:
        value = interval(means[best, question.as_trained(best), at], question)
        texts.append(f"best of all is **{best.label}** ({value})")
    return f"{place(at)}{'; '.join(texts)}" if texts else ""


def verdict(contrast: Contrast, question: Question) -> str:
    """better, worse, not told apart, or why nothing is known."""
    if not contrast.by:
        return "one seed"
    if not math.isfinite(contrast.p):
        return "no spread"
    if not contrast.is_sure:
        return "not told apart"
    if question.higher_is_better is None:
        return "different"
    return "better" if question.is_better(contrast.difference.mean) else "worse"


def place(at: float | None) -> str:
    """The words before what holds at a length."""
    return "" if at is None else f"at {at:g}× "


def interval(found: Estimate, question: Question, *, signed: bool = False) -> str:
    """A mean and its interval as text."""
    shown = question.signed if signed else question.shown
    if not found.interval:
        return f"{shown(found.mean)}{' (one seed: no interval)' if found.n_seeds == 1 else ''}"
    return f"{shown(found.mean)} [{shown(found.low)}, {shown(found.high)}]"


def _names(names: Sequence[str], n: int, every: str = "all others") -> str:
    if len(names) == n > MOST_NAMES:
        return every
    return _listed(names) if len(names) <= MOST_NAMES else f"{len(names)} of {n}"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
