"""How sure differences are, in a report: between conditions, and between two readings of the same models."""

import math
from collections.abc import Iterator, Sequence

from lightning_metatok.report import contrasts as compared
from lightning_metatok.report import figures
from lightning_metatok.report.budgets import EQUAL, UNITS, scale
from lightning_metatok.report.contrasts import Contrast
from lightning_metatok.report.estimates import (
    CONFIDENCE,
    FEWEST,
    PAIRED_T,
    POWER,
    SIGN_FLIP,
    WELCH,
    smallest_p,
)
from lightning_metatok.report.finding import Means, ends, verdict
from lightning_metatok.report.lengths import Question
from lightning_metatok.report.page import Block, Heading, Paragraph, Picture, Table
from lightning_metatok.report.runs import BUDGETS, Condition
from lightning_metatok.report.scored_text import NOT_KNOWN, is_known
from lightning_metatok.report.study import Study, label

SURE = [f"{CONFIDENCE:.0%} interval", "p", "seeds", f"found in {POWER:.0%}"]
MOST_NOTES = 4
"""Conditions that ended elsewhere and are named; more are counted."""


def differences(study: Study, found: Sequence[Contrast], asked: Question) -> Iterator[Block]:
    """The differences between conditions."""
    if not found:
        return
    names = [contrast_name(study, contrast) for contrast in found]
    figure = figures.contrasts_figure(found, asked, names)
    about = scale(study.conditions)
    yield Heading("How sure")
    yield Picture("differences", figures.png(figure), f"Differences with {CONFIDENCE:.0%} intervals. {about}.")
    yield differences_table(study, found, names, asked)
    notes = [method(found), *budget_notes(found)]
    yield Paragraph(" ".join(notes))


def contrast_name(study: Study, contrast: Contrast) -> str:
    """What is compared: `meta − plain`, or with several axes `rotary: dropped − kept`."""
    axis = compared.contrast_axis(study)
    if axis is None:
        return f"{contrast.a.label} − {contrast.b.label}"
    others = {key: value for key, value in contrast.a.axes.items() if key != axis}
    rest = "mean of all" if contrast.is_average else label(others)
    a, b = (label({axis: condition.axes[axis]}) for condition in (contrast.a, contrast.b))
    return f"{rest}: {a} − {b}"


def method(found: Sequence[Contrast]) -> str:
    """Say how a table's intervals and p were made, and what they can show at all."""
    tests = [contrast.difference for contrast in found if math.isfinite(contrast.difference.p)]
    kinds = {contrast.difference.by for contrast in found}
    parts = []
    if PAIRED_T in kinds:
        parts.append("Differences are paired by seed (t test of their mean).")
    if SIGN_FLIP in kinds:
        parts.append("Shares of right answers are paired by seed (inverted sign-flip test).")
    if WELCH in kinds:
        parts.append("Where nothing is paired, the test is Welch's.")
    if "" in kinds:
        parts.append(f"Fewer than {FEWEST} seeds have no interval and no p.")
    if tests:
        s = "s" if len(tests) > 1 else ""
        parts.append(f"p is corrected for {len(tests)} test{s} in this table (Holm). Intervals are for one difference.")
        parts.append(f"Found in {POWER:.0%}: the smallest true difference that as many seeds with this spread would")
        parts.append(f"have found with a power of {POWER:.0%}, in one test.")
        if (least := smallest_p(tests)) * len(tests) >= 1 - CONFIDENCE:
            parts.append(f"So few seeds give a p of {least:.3f} at least: after the correction not all can be sure.")
    return " ".join(parts)


def budget_notes(found: Sequence[Contrast]) -> list[str]:
    """Say which compared conditions did not end at the same budget."""
    notes = []
    for name, unit in UNITS.items():
        parts: dict[str, None] = {}
        for contrast in found:
            ended = [spent for c in (contrast.a, contrast.b) if math.isfinite(spent := _spent(c, BUDGETS[name]))]
            if len(ended) == 2 and max(ended) - min(ended) > EQUAL * max(ended):
                shown = [f"{at:,.0f}" if name == "source_tokens" else f"{at:.3g}" for at in ended]
                parts[f"{contrast.a.label} ended at {shown[0]} {unit}, {contrast.b.label} at {shown[1]}"] = None
        if parts:
            more = f"; and {len(parts) - MOST_NOTES} more" if len(parts) > MOST_NOTES else ""
            notes.append(f"Not at equal {unit}: {'; '.join(list(parts)[:MOST_NOTES])}{more}.")
    return notes


def _spent(condition: Condition, name: str) -> float:
    known = [at for run in condition.runs if math.isfinite(at := run.last(name))]
    return sum(known) / len(known) if known else math.nan


def differences_table(
    study: Study,
    found: Sequence[Contrast],
    names: Sequence[str],
    asked: Question,
) -> Table:
    """Return a row a difference."""
    header = ["difference", "mean", *SURE, "verdict"]
    rows = []
    for name, contrast in zip(names, found, strict=True):
        row = [name, asked.signed(contrast.difference.mean), *_sure(contrast, asked)]
        rows.append(row if contrast.at is None else [f"{contrast.at:g}×", *row])
    caption = f"Each mean over seeds, {scale(study.conditions)}."
    if not is_known(study.runs):
        caption = f"**{NOT_KNOWN[:1].upper()}{NOT_KNOWN[1:]}.** {caption}"
    if not asked.multiples:
        return Table(header, rows, frozenset(range(1, 6)), caption)
    return Table(["length", *header], rows, frozenset(range(2, 7)), caption)


def changes(study: Study, asked: Question, means: Means) -> Iterator[Block]:
    """What other readings of meta-tokens do to the same models, a table each."""
    found = compared.readings(study, asked)
    if not found:
        return
    yield Heading(f"Positions at meta-tokens: the same models, read {asked.read}")
    first = next(iter(asked.names))
    for other in asked.others:
        rows, read = [], []
        for contrast in (one for one in found if one.reading == other):
            base, changed = (means[contrast.a, reading, contrast.at] for reading in (first, other))
            values = [asked.shown(base.mean), asked.shown(changed.mean), asked.signed(contrast.difference.mean)]
            rows.append([contrast.a.label, f"{contrast.at:g}×", *values, *_sure(contrast, asked)])
            read.append(contrast.a)
        header = ["condition", "length", first, other, f"{other} − {first}", *SURE, "that makes it"]
        about = scale(sorted(set(read), key=study.conditions.index))
        if rows:
            yield Table(header, rows, frozenset(range(1, 9)), f"The same runs on the same text, {about}.")
    yield Paragraph(method(found))


def _sure(contrast: Contrast, asked: Question) -> list[str]:
    """Cells: interval, p, seeds, what would have been found, verdict."""
    found, said = contrast.difference, verdict(contrast, asked)
    certain = f"**{said}**" if contrast.is_sure else said
    interval = ends(found, asked, signed=True)
    return [interval, p_value(contrast.holm), str(found.n_seeds), asked.shown(found.detectable), certain]


def p_value(p: float) -> str:
    """p as text."""
    return "–" if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
