"""Which condition is better than which, and how sure that is.

    one axis         every condition against the base one
    several axes     within each combination of the others: with rotary, dropped against kept; with alibi, ...;
                     and their mean over all combinations, seed by seed

Two conditions are compared seed by seed where they share five seeds and are known to be scored on the same text: what
the text and the data of a seed do to both, and the weights that both have, cancels out, and no more. Else by Welch's
test, which pairs nothing. All tests of one table are corrected together with Holm's method. Fewer than five seeds: no
interval and no p.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lightning_metatok.analysis.statistics import holm
from lightning_metatok.report.estimates import CONFIDENCE, Difference, Estimate, difference, estimate
from lightning_metatok.report.lengths import Question
from lightning_metatok.report.runs import Condition, Run, seed_keys
from lightning_metatok.report.scored_text import is_known
from lightning_metatok.report.study import Study

ARM = "arm"
Values = dict[object, float]
"""A value by seed."""


@dataclass(frozen=True)
class Contrast:
    """`a` minus `b` at a length. `holm`: p, corrected for all tests of a table.

    `reading`: how `a` is read, where it is the same condition as `b`, which is read in the first way.
    """

    a: Condition
    b: Condition
    at: float | None
    difference: Difference
    holm: float = math.nan
    reading: str = ""

    @property
    def is_average(self) -> bool:
        """Whether it is a mean over combinations of other axes."""
        return not self.a.runs

    @property
    def is_sure(self) -> bool:
        """Whether the difference holds with all others of its table."""
        return self.holm < 1 - CONFIDENCE


def means(study: Study, question: Question) -> dict[tuple[Condition, str, float | None], Estimate]:
    """Return the mean over seeds of every condition, by reading and length, where its runs logged it."""
    found = {}
    for condition in study.conditions:
        for reading in question.names:
            for at in question.places:
                values = [question.value(run, reading, at) for run in condition.runs]
                known = [value for value in values if math.isfinite(value)]
                if known:
                    found[condition, reading, at] = estimate(known, share=question.share, solved=question.solved)
    return found


def pairs(study: Study, question: Question) -> list[tuple[Condition, Condition]]:
    """Return who is compared with whom: (condition, the one that it is measured against)."""
    axis = contrast_axis(study)
    if axis is None:
        base = base_of(study, question)
        return [(condition, base) for condition in study.conditions if condition is not base]
    found = []
    base_value = study.base.axes[axis]
    for group in within(study, axis):
        base = next((condition for condition in group if condition.axes[axis] == base_value), group[0])
        found += [(condition, base) for condition in group if condition is not base]
    return found


def base_of(study: Study, question: Question) -> Condition:
    """The condition that others are compared with: the plain one, else the first that was measured at all lengths."""

    def is_whole(condition: Condition) -> bool:
        reading = question.as_trained(condition)
        return all(_by_seed(condition.runs, question, reading, at) for at in question.places)

    whole = [condition for condition in study.conditions if is_whole(condition)]
    return next((c for c in whole if c.is_plain), whole[0] if whole else study.base)


def contrast_axis(study: Study) -> str | None:
    """The axis that is compared within the others: the arm, else the one with the fewest values; None with one axis."""
    if len(study.axes) < 2:
        return None
    n_values = {axis: len({str(c.axes[axis]) for c in study.conditions}) for axis in study.axes}
    for axis in sorted(study.axes, key=lambda axis: (axis != ARM, n_values[axis])):
        if any(len(group) > 1 for group in within(study, axis)):
            return axis
    return None


def within(study: Study, axis: str) -> list[list[Condition]]:
    """Return groups of conditions that differ in `axis` alone."""
    groups: dict[tuple[str, ...], list[Condition]] = {}
    for condition in study.conditions:
        rest = tuple(str(value) for key, value in condition.axes.items() if key != axis)
        groups.setdefault(rest, []).append(condition)
    return list(groups.values())


def arms(study: Study, question: Question) -> list[Contrast]:
    """Return all contrasts between conditions, each read as it was trained, at every length."""
    found: list[Contrast | None] = []
    for at in question.places:
        found += [contrast(a, b, question, at) for a, b in pairs(study, question)]
        found += averages(study, question, at)
    return corrected([one for one in found if one is not None])


def averages(study: Study, question: Question, at: float | None) -> list[Contrast]:
    """Return, for each two values of the axis that is compared, their difference averaged over all other axes.

    The mean over combinations is taken seed by seed, of seeds that all combinations have: seeds stay what is drawn.
    """
    axis = contrast_axis(study)
    if axis is None:
        return []
    kinds: dict[tuple[str, str], list[tuple[Values, Values]]] = {}
    paired = is_known(study.runs)
    for conditions in pairs(study, question):
        a, b = (_by_seed(c.runs, question, question.as_trained(c), at) for c in conditions)
        if a and b:
            kinds.setdefault((str(conditions[0].axes[axis]), str(conditions[1].axes[axis])), []).append((a, b))
    found = []
    for names, tables in kinds.items():
        seeds = [seed for seed in tables[0][0] if all(seed in a and seed in b for a, b in tables)]
        if len(tables) > 1 and seeds:
            a, b = ({seed: float(np.mean([pair[side][seed] for pair in tables])) for seed in seeds} for side in (0, 1))
            one, other = (Condition(name, 0, False, (), {axis: name}) for name in names)
            found.append(Contrast(one, other, at, difference(a, b, share=question.share, paired=paired)))
    return found


def against(
    best: Condition,
    others: Sequence[Condition],
    question: Question,
    at: float | None,
) -> list[Contrast]:
    """Return the contrasts of one condition with all others at a length."""
    found = [contrast(best, other, question, at) for other in others]
    return corrected([one for one in found if one is not None])


def contrast(
    a: Condition,
    b: Condition,
    question: Question,
    at: float | None,
) -> Contrast | None:
    """Return `a` minus `b`, each read as it was trained; None where one of them was not measured."""
    values_a, values_b = (_by_seed(c.runs, question, question.as_trained(c), at) for c in (a, b))
    if not (values_a and values_b):
        return None
    paired = is_known([*a.runs, *b.runs])
    return Contrast(a, b, at, difference(values_a, values_b, share=question.share, paired=paired))


def readings(study: Study, question: Question) -> list[Contrast]:
    """Return what other readings do to trained models: each reading minus the first, run by run."""
    first, found = next(iter(question.names)), []
    for at in question.places:
        for condition in study.conditions:
            base = _by_seed(condition.runs, question, first, at)
            for other in question.others:
                if base and (values := _by_seed(condition.runs, question, other, at)):
                    change = difference(values, base, share=question.share)
                    found.append(Contrast(condition, condition, at, change, reading=other))
    return corrected(found)


def corrected(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """Return the contrasts with Holm's p."""
    ps = holm([contrast.difference.p for contrast in contrasts])
    return [replace(contrast, holm=float(p)) for contrast, p in zip(contrasts, ps, strict=True)]


def _by_seed(runs: Sequence[Run], question: Question, reading: str, at: float | None) -> Values:
    values = {key: question.value(run, reading, at) for key, run in zip(seed_keys(runs), runs, strict=True)}
    return {key: value for key, value in values.items() if math.isfinite(value)}
