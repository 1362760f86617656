"""The finding in words: which conditions lead at the trained and at the longest length, and how sure that is.

Only a condition that is told apart from all others is called the best. Where seeds do not tell it from some, all of
them lead together.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_metatok.report.contrasts import Contrast, against, contrast_axis
from lightning_metatok.report.estimates import POWER, Difference, Estimate, runs_text
from lightning_metatok.report.lengths import Question
from lightning_metatok.report.runs import Condition
from lightning_metatok.report.study import Study, label

MOST_NAMES = 4
"""That a sentence lists; more are counted."""
APART = "not told apart"

Means = Mapping[tuple[Condition, str, float | None], Estimate]


@dataclass(frozen=True)
class Lead:
    """The condition with the best mean at a length, and how it stands to all others that were measured there."""

    first: Condition
    beaten: list[Contrast]
    level: list[Contrast]
    unknown: list[Contrast]

    @property
    def leading(self) -> list[Condition]:
        """Who leads: the first and all that are not told apart from it; nobody where something is not known."""
        return [] if self.unknown else [self.first, *(contrast.b for contrast in self.level)]


def finding(
    study: Study,
    question: Question,
    means: Means,
    contrasts: Sequence[Contrast],
) -> str:
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


def headline(text: str) -> str:
    """The first sentence of a finding without its numbers, for the title of a figure."""
    sentence = re.match(r".*?(?=\. At |\.?$)", text)
    return re.sub(r" \([^()]*\)", "", sentence[0] if sentence else text).replace("**", "")


def lead(
    study: Study,
    question: Question,
    means: Means,
    at: float | None,
) -> Lead | None:
    """Return who has the best mean at a length and who is told apart from it; None where nobody can say."""
    known = {c: means[key].mean for c in study.conditions if (key := (c, question.as_trained(c), at)) in means}
    first = question.best(known)
    if first is None:
        return None
    found = against(first, [condition for condition in known if condition is not first], question, at)
    kinds: dict[str, list[Contrast]] = {"beaten": [], "level": [], "unknown": []}
    for contrast in found:
        kind = "beaten" if contrast.is_sure else "level" if math.isfinite(contrast.difference.p) else "unknown"
        kinds[kind].append(contrast)
    return Lead(first, **kinds)


def leader(
    study: Study,
    question: Question,
    means: Means,
    at: float | None,
) -> str:
    """Say who is best at a length, or who leads without being told apart."""
    found = lead(study, question, means, at)
    if found is None:
        return ""

    def named(condition: Condition) -> str:
        return f"**{condition.label}** ({spoken(means[condition, question.as_trained(condition), at], question)})"

    n = len(found.beaten) + len(found.level) + len(found.unknown)
    beaten = [contrast.b.label for contrast in found.beaten]
    if not n:
        return f"{place(at)}{named(found.first)} alone was measured"
    parts = []
    if found.level:
        shown = [found.first, *(contrast.b for contrast in found.level)]
        who = _listed([named(c) for c in shown[:MOST_NAMES]])
        more = f" and {len(shown) - MOST_NAMES} more" if len(shown) > MOST_NAMES else ""
        parts.append(f"{who}{more} lead, {APART}{power_text(found.level, question)}")
        if beaten:
            parts.append(f"{found.first.label} is beyond chance ahead of {_names(beaten, n)}")
    elif found.unknown:
        parts.append(f"{named(found.first)} is ahead by its mean")
        if beaten:
            parts.append(f"beyond chance ahead of {_names(beaten, n)}")
    else:
        parts.append(f"{named(found.first)} is best: beyond chance better than {_names(beaten, n)}")
    if found.unknown:
        parts.append(f"nothing is known of {_names([contrast.b.label for contrast in found.unknown], n)}")
    return f"{place(at)}{'; '.join(parts)}"


def split(
    study: Study,
    question: Question,
    means: Means,
    contrasts: Sequence[Contrast],
    at: float | None,
) -> str:
    """Say with which values of the other axes one value of an axis beats another, at a length."""
    axis = contrast_axis(study)
    assert axis is not None
    texts = []
    here = [contrast for contrast in contrasts if contrast.at == at]
    kinds = list(dict.fromkeys((str(c.a.axes[axis]), str(c.b.axes[axis])) for c in here))
    for a, b in kinds:
        of_kind = [c for c in here if (str(c.a.axes[axis]), str(c.b.axes[axis])) == (a, b)]
        sides: dict[str, list[Contrast]] = {}
        parts = []
        for contrast in of_kind:
            said = verdict(contrast, question)
            if contrast.is_average:
                power = power_text([contrast], question) if said == APART else ""
                parts.append(f"on average {said} ({change(contrast.difference, question)}){power}")
                continue
            sides.setdefault(said, []).append(contrast)
        n = sum(map(len, sides.values()))
        for said, found in sides.items():
            rest = [label({key: value for key, value in c.a.axes.items() if key != axis}) for c in found]
            names = _names(rest, n, f"all {n}")
            power = power_text(found, question) if said == APART else ""
            parts.append(f"{said} with {names}{power}" if found[0].difference.by else f"with {names} {said}")
        texts.append(f"**{a}** against **{b}**: {', '.join(parts)}")
    first = lead(study, question, means, at)
    if first is not None:
        value = spoken(means[first.first, question.as_trained(first.first), at], question)
        if first.unknown:
            texts.append(f"ahead by its mean alone: **{first.first.label}** ({value})")
        elif not first.level:
            texts.append(f"beyond chance ahead of all others: **{first.first.label}** ({value})")
        elif len(first.leading) <= MOST_NAMES:
            texts.append(f"in front, {APART}: {_listed([f'**{one.label}**' for one in first.leading])}")
        else:
            texts.append(f"in front, {APART}: **{first.first.label}** ({value}) and {len(first.level)} more")
    return f"{place(at)}{'; '.join(texts)}" if texts else ""


def verdict(contrast: Contrast, question: Question) -> str:
    """better, worse, not told apart, or why nothing is known."""
    found = contrast.difference
    if not found.by:
        return runs_text(found.n_seeds)
    if not math.isfinite(found.p):
        return "no spread"
    if not contrast.is_sure:
        return APART
    if question.higher_is_better is None:
        return "different"
    return "better" if question.is_better(found.mean) else "worse"


def power_text(contrasts: Sequence[Contrast], question: Question) -> str:
    """Say what differences some tests would have found; empty where nobody knows."""
    found = [c.difference for c in contrasts if math.isfinite(c.difference.detectable)]
    if not found:
        return ""
    sizes, n = sorted(one.detectable for one in found), sorted(one.n_seeds for one in found)
    size, seeds = (
        " to ".join(dict.fromkeys((show(values[0]), show(values[-1]))))
        for values, show in ((sizes, question.shown), (n, str))
    )
    return f" ({seeds} seeds find {size} in {POWER:.0%})"


def place(at: float | None) -> str:
    """The words before what holds at a length."""
    return "" if at is None else f"at {at:g}× "


def spoken(found: Estimate, question: Question) -> str:
    """A mean and what its seeds say of it, in one text."""
    shown = question.shown
    if found.n_seeds == 1:
        return f"{shown(found.mean)}, {runs_text(1)}"
    ends = f"{shown(found.smallest)} to {shown(found.largest)}"
    if found.interval:
        return f"{shown(found.mean)} [{shown(found.low)}, {shown(found.high)}]"
    parts = [f"{shown(found.mean)}, {ends}"]
    if found.solved is not None:
        parts.append(f"solved by {found.solved.n_solved} of {found.solved.of} runs")
    elif not question.share:
        parts.append(runs_text(found.n_seeds))
    return ", ".join(parts)


def short(found: Estimate, question: Question) -> str:
    """A mean with its smallest and largest seed, for a cell of a table."""
    shown = question.shown
    if found.n_seeds == 1:
        return shown(found.mean)
    return f"{shown(found.mean)} ({shown(found.smallest)} to {shown(found.largest)})"


def ends(found: Estimate | Difference, question: Question, *, signed: bool = False) -> str:
    """An interval as text, or why there is none."""
    shown = question.signed if signed else question.shown
    if not math.isfinite(found.low):
        by = found.by if isinstance(found, Difference) else found.interval
        return "no spread" if by else runs_text(found.n_seeds)
    return f"[{shown(found.low)}, {shown(found.high)}]"


def change(found: Difference, question: Question) -> str:
    """A difference and its interval as text."""
    return f"{question.signed(found.mean)}{f' {ends(found, question, signed=True)}' if found.has_interval else ''}"


def _names(names: Sequence[str], n: int, every: str = "all others") -> str:
    if len(names) == n > MOST_NAMES:
        return every
    return _listed(names) if len(names) <= MOST_NAMES else f"{len(names)} of {n}"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
