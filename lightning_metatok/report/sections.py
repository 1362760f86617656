"""The report of a study, section by section: what was found, how sure, how it was learned, and what it cost."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import yaml

import lightning_metatok
from lightning_metatok.report import contrasts as compared
from lightning_metatok.report import figures
from lightning_metatok.report.budgets import CONFIDENCE
from lightning_metatok.report.contrasts import Contrast
from lightning_metatok.report.finding import finding, interval, verdict
from lightning_metatok.report.lengths import DEFAULTS, DROPPED, KEPT, Question, question
from lightning_metatok.report.page import Block, Heading, Lead, Listing, Page, Paragraph, Picture, Table
from lightning_metatok.report.probes import probes
from lightning_metatok.report.runs import BUDGETS, CONFIG, SEEDS, Run
from lightning_metatok.report.study import Study, label

OF_A_RUN = {*SEEDS, "run_dir", "ckpt_path"}
"""Settings that every run has for itself."""


def report(study: Study, *, with_probes: bool = False) -> Page:
    """Return the page.

    Raises:
        UserError: no metric that the runs logged.
    """
    asked = question(study)
    means, found = compared.means(study, asked), compared.arms(study, asked)
    if asked.multiples:
        picture = Picture("lengths", figures.png(figures.lengths_figure(study, asked)), _by_length(study, asked))
    else:
        figure = figures.dots_figure(study, asked, means)
        picture = Picture("values", figures.png(figure), f"`{asked.quantity}`, by condition.")
    blocks: list[Block] = [
        Lead(finding(study, asked, means, found)),
        picture,
        Paragraph(_counts(study)),
        *_differences(study, found, asked),
        *_readings(study, asked, means),
        Heading("Every condition"),
        values_table(study, asked, means),
        *_curves(study, asked),
        Heading("Cost"),
        cost_table(study),
        Heading("Environment"),
        environment(study),
        *_configurations(study),
        *(probes(study.runs) if with_probes else []),
    ]
    return Page(study.title, blocks)


def _by_length(study: Study, asked: Question) -> str:
    text = f"{asked.quantity[:1].upper()}{asked.quantity[1:]} by length: means over seeds, bands from the smallest seed"
    text += " to the largest."
    if {KEPT, DROPPED} <= set(asked.names):
        text += " Solid: read as trained. Dashed: the same models read the other way."
    return text


def _counts(study: Study) -> str:
    n, runs = len(study.runs), sorted({len(condition.runs) for condition in study.conditions})
    seeds = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    text = f"{n} finished runs, {len(study.conditions)} conditions of {seeds} seed{'s' if runs[-1] > 1 else ''} each."
    if left := sum(study.left_out.values()):
        shown = ", ".join(f"{count} {state}" for state, count in study.left_out.items())
        text += f" **{left} of {n + left} runs are left out** because they are not finished ({shown})."
    return text


def _differences(study: Study, found: Sequence[Contrast], asked: Question) -> Iterator[Block]:
    """The differences between conditions."""
    if not found:
        return
    names = [contrast_name(study, contrast) for contrast in found]
    figure = figures.contrasts_figure(found, asked, names)
    yield Heading("How sure")
    yield Picture("differences", figures.png(figure), f"Differences with {CONFIDENCE:.0%} intervals.")
    yield differences_table(found, names, asked)
    yield Paragraph(_method(found))


def contrast_name(study: Study, contrast: Contrast) -> str:
    """What is compared: `meta − plain`, or with several axes `rotary: dropped − kept`."""
    axis = compared.contrast_axis(study)
    if axis is None:
        return f"{contrast.a.label} − {contrast.b.label}"
    others = {key: value for key, value in contrast.a.axes.items() if key != axis}
    rest = "mean of all" if contrast.is_average else label(others)
    a, b = (label({axis: condition.axes[axis]}) for condition in (contrast.a, contrast.b))
    return f"{rest}: {a} − {b}"


def _method(found: Sequence[Contrast]) -> str:
    n = sum(math.isfinite(contrast.p) for contrast in found)
    kinds = {contrast.by for contrast in found}
    parts = []
    if "paired" in kinds:
        parts.append("Differences are paired by seed (t test of their mean).")
    if "welch" in kinds:
        parts.append("Where two conditions share fewer than two seeds, the test is Welch's, which pairs nothing.")
    if "" in kinds:
        parts.append("One seed has no spread: no interval, no p.")
    if n:
        parts.append(f"p is corrected for {n} tests in this table (Holm). Intervals are for one difference each.")
    return " ".join(parts)


def differences_table(found: Sequence[Contrast], names: Sequence[str], asked: Question) -> Table:
    """Return a row a difference."""
    header = ["difference", f"mean [{CONFIDENCE:.0%} interval]", "p", "seeds", "verdict"]
    rows = []
    for name, contrast in zip(names, found, strict=True):
        said = verdict(contrast, asked)
        difference = interval(contrast.difference, asked, signed=True)
        certain = f"**{said}**" if contrast.is_sure else said
        row = [name, difference, p_value(contrast.holm), str(contrast.difference.n_seeds), certain]
        rows.append(row if contrast.at is None else [f"{contrast.at:g}×", *row])
    if not asked.multiples:
        return Table(header, rows, frozenset({1, 2, 3}))
    return Table(["length", *header], rows, frozenset({2, 3, 4}))


def _readings(study: Study, asked: Question, means: figures.Means) -> Iterator[Block]:
    """What dropping positions at meta-tokens does to the same models."""
    found = compared.readings(study, asked)
    if not found:
        return
    yield Heading("Positions at meta-tokens: the same models, read with and without")
    header = ["condition", "length", "kept", "dropped", "dropped − kept", "p", "seeds", "dropping makes it"]
    rows = []
    for contrast in found:
        kept, dropped = (means[contrast.a, reading, contrast.at] for reading in (KEPT, DROPPED))
        said = verdict(contrast, asked)
        values = [asked.shown(kept.mean), asked.shown(dropped.mean), interval(contrast.difference, asked, signed=True)]
        last = [p_value(contrast.holm), str(contrast.difference.n_seeds), f"**{said}**" if contrast.is_sure else said]
        rows.append([contrast.a.label, f"{contrast.at:g}×", *values, *last])
    yield Table(header, rows, frozenset(range(1, 7)))
    yield Paragraph(_method(found))


def values_table(study: Study, asked: Question, means: figures.Means) -> Table:
    """Return a row a condition: its means as it was trained, by length, and what else the sweep collects."""
    by_length = {name.format(f"{m:g}") for name in asked.names.values() for m in asked.places if m is not None}
    more = [metric for metric in study.metrics if metric not in {*by_length, *asked.names.values()}]
    more = [metric for metric in more if metric not in BUDGETS.values()]
    best = {
        at: asked.best({c: means[key].mean for c in study.conditions if (key := (c, asked.as_trained(c), at)) in means})
        for at in asked.places
    }
    columns = [asked.quantity if at is None else f"{at:g}×" for at in asked.places]
    rows = []
    for condition in study.conditions:
        cells = []
        for at in asked.places:
            found = means.get((condition, asked.as_trained(condition), at))
            text = interval(found, asked) if found else "–"
            if found and found.n_seeds < len(condition.runs):  # else a seed that diverged would leave without a word
                text += f" ({found.n_seeds} of {len(condition.runs)} seeds finite)"
            cells.append(f"**{text}**" if condition is best[at] and len(study.conditions) > 1 else text)
        others = [_mean([run.last(metric) for run in condition.runs]) for metric in more]
        rows.append([condition.label, f"{condition.parameters:,}", str(len(condition.runs)), *cells, *others])
    header = ["condition", "parameters", "seeds", *columns, *more]
    return Table(header, rows, frozenset(range(1, len(header))))


def _curves(study: Study, asked: Question) -> Iterator[Block]:
    """The first metric that somebody logged while learning."""
    drawn = ((metric, figures.curves_figure(study, metric)) for metric in (asked.curve, *DEFAULTS))
    for metric, figure in drawn:
        if figure is not None:
            yield Heading("While learning")
            yield Picture("curves", figures.png(figure), f"`{metric}` against source tokens.")
            return


def cost_table(study: Study) -> Table:
    """Return a row a condition: means over its runs."""
    rows = []
    for condition in study.conditions:
        runs = condition.runs
        seconds = [study.seconds[run.folder] for run in runs if run.folder in study.seconds]
        spread = f" ({min(seconds):,.0f} to {max(seconds):,.0f})" if len(seconds) > 1 else ""
        rows.append(
            [
                condition.label,
                f"{condition.parameters:,}",
                f"{np.mean(seconds):,.0f}{spread}" if seconds else "–",
                _mean([run.last(BUDGETS["source_tokens"]) for run in runs], ",.0f"),
                _mean([run.last(BUDGETS["flops"]) for run in runs], ".3g"),
                _mean([_median(run, "throughput/tokens_per_s") for run in runs], ",.0f"),
                _mean([run.last("throughput/peak_memory_gb") for run in runs], ".2f"),
            ]
        )
    header = [
        "condition",
        "parameters",
        "seconds a run",
        "source tokens",
        "training FLOPs",
        "tokens/s",
        "peak memory, GB",
    ]
    return Table(header, rows, frozenset(range(1, 7)))


def environment(study: Study) -> Table:
    """Return what the run folders say of versions and machines; no name of a machine, no path."""
    runs = study.runs
    facts = {
        "libraries": _versions(runs),
        **{
            name: [str(run.environment[name]) for run in runs if name in run.environment]
            for name in dict.fromkeys(name for run in runs for name in run.environment)
        },
        "code of the runs": [study.code] if study.code else [],
        **{
            name: [str(run.config[key]) for run in runs if run.config.get(key) is not None]
            for name, key in (
                ("precision", "trainer.precision"),
                ("accelerator asked for", "trainer.accelerator"),
                ("devices asked for", "trainer.devices"),
                ("nodes", "trainer.num_nodes"),
                ("attention backend asked for", "model.attention_backend"),
            )
        },
        "tokenizer": [run.tokenizer for run in runs],
        "seeds": [str(seed) for seed in sorted({run.seed[0] for run in runs}, key=str)],
        "page made with": [f"lightning-metatok {lightning_metatok.__version__}"],
    }
    return Table(["", ""], [[name, ", ".join(dict.fromkeys(values))] for name, values in facts.items() if values])


def _versions(runs: Sequence[Run]) -> list[str]:
    """What stands in the first line of config.yaml: the versions that wrote it."""
    lines = []
    for run in runs:
        with (run.folder / CONFIG).open(encoding="utf-8") as file:
            line = file.readline().strip()
        if line.startswith("# "):
            lines.append(line[2:])
    return lines


def _configurations(study: Study) -> Iterator[Block]:
    """What conditions differ in from the base one, and the base one itself."""
    base = study.base.runs[0].config
    yield Heading("Configurations")
    rows = []
    for condition in study.conditions:
        config = condition.runs[0].config
        keys = [key for key in dict.fromkeys([*base, *config]) if key not in OF_A_RUN]
        changed = [f"`{key}={_shown(config.get(key))}`" for key in keys if config.get(key) != base.get(key)]
        said = ", ".join(changed) or ("the base" if condition is study.base else "nothing")
        rows.append([condition.label, said])
    yield Table(["condition", f"differs from {study.base.label} in"], rows)
    text = "".join(f"{key}: {_shown(value)}\n" for key, value in base.items() if key not in OF_A_RUN)
    yield Listing(f"the configuration of {study.base.label}", text)


def _shown(value: Any) -> str:
    """A value as YAML, a path without the folders that it lies in."""
    if isinstance(value, str):
        return value.rpartition("/")[2] if value.startswith("/") else value
    if isinstance(value, list):
        return f"[{', '.join(_shown(one) for one in value)}]"
    if isinstance(value, dict):
        return json.dumps({key: _shown(one) if isinstance(one, str) else one for key, one in value.items()})
    return str(yaml.safe_dump(value)).removesuffix("...\n").strip()


def p_value(p: float) -> str:
    """p as text."""
    return "–" if not math.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _mean(values: Sequence[float], form: str = ".4g") -> str:
    known = [value for value in values if math.isfinite(value)]
    return f"{np.mean(known):{form}}" if known else "–"


def _median(run: Run, metric: str) -> float:
    _, values = run.logged(metric)
    return float(np.median(values)) if len(values) else math.nan
