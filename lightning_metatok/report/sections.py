"""The report of a study, section by section: what was found, how sure, how it was learned, and what it cost."""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import yaml

import lightning_metatok
from lightning_metatok.analysis.effective_length import KEPT_SHARE, effective_length
from lightning_metatok.report import contrasts as compared
from lightning_metatok.report import figures
from lightning_metatok.report.budgets import scale, schedule_note
from lightning_metatok.report.differences import changes, differences
from lightning_metatok.report.estimates import CONFIDENCE, SOLVED, solved_text
from lightning_metatok.report.finding import ends, finding, headline, lead, short
from lightning_metatok.report.lengths import DEFAULTS, Question, question
from lightning_metatok.report.page import Block, Heading, Lead, Listing, Page, Paragraph, Picture, Table
from lightning_metatok.report.probes import probes
from lightning_metatok.report.runs import BUDGETS, CONFIG, SEEDS, Condition, Run
from lightning_metatok.report.solving import solving
from lightning_metatok.report.study import Study

OF_A_RUN = {*SEEDS, "run_dir", "ckpt_path"}
"""Settings that every run has for itself."""


def report(study: Study, *, with_probes: bool = False, solved: float = SOLVED) -> Page:
    """Return the page.

    Args:
        solved: share of exact answers from which on a run has solved its task.

    Raises:
        UserError: no metric that the runs logged.
    """
    asked = question(study, solved)
    means, found = compared.means(study, asked), compared.arms(study, asked)
    if asked.multiples:
        picture = Picture("lengths", figures.png(figures.lengths_figure(study, asked)), _by_length(study, asked))
    else:
        figure = figures.dots_figure(study, asked, means)
        caption = f"`{asked.quantity}`, by condition. {_scale(study)}"
        picture = Picture("values", figures.png(figure), caption)
    said = finding(study, asked, means, found)
    blocks: list[Block] = [
        Lead(said),
        picture,
        Paragraph(_counts(study)),
        *differences(study, found, asked),
        *changes(study, asked, means),
        *solving(study, asked),
        Heading("Every condition"),
        values_table(study, asked, means),
        *_curves(study, asked, said),
        Heading("Cost"),
        cost_table(study),
        Heading("Environment"),
        environment(study),
        *_configurations(study),
        *(probes(study.runs) if with_probes else []),
    ]
    return Page(study.title, blocks)


def _scale(study: Study) -> str:
    text = scale(study.conditions)
    return f"{text[:1].upper()}{text[1:]}."


def _by_length(study: Study, asked: Question) -> str:
    text = f"{asked.quantity[:1].upper()}{asked.quantity[1:]} by length: means over seeds, bands from the smallest seed"
    text += " to the largest."
    if asked.others:
        way = "the other way" if len(asked.others) == 1 else "in the other ways"
        text += f" Solid: read as trained. Dashed: the same models read {way}."
    return f"{text} {_scale(study)}"


def _counts(study: Study) -> str:
    n, runs = len(study.runs), sorted({len(condition.runs) for condition in study.conditions})
    seeds = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    text = f"{n} finished runs, {len(study.conditions)} conditions of {seeds} seed{'s' if runs[-1] > 1 else ''} each."
    if left := sum(study.left_out.values()):
        shown = ", ".join(f"{count} {state}" for state, count in study.left_out.items())
        text += f" **{left} of {n + left} runs are left out** because they are not finished ({shown})."
    if note := schedule_note(study.conditions):
        text += f" **{note[:1].upper()}{note[1:]}.**"
    return text


def values_table(study: Study, asked: Question, means: figures.Means) -> Table:
    """Return a row a condition: its means as it was trained, by length, and what else the sweep collects."""
    by_length = {name.format(f"{m:g}") for name in asked.names.values() for m in asked.places if m is not None}
    more = [metric for metric in study.metrics if metric not in {*by_length, *asked.names.values()}]
    more = [metric for metric in more if metric not in BUDGETS.values()]
    ahead = {at: first.leading if (first := lead(study, asked, means, at)) else [] for at in asked.places}
    columns = [asked.quantity if at is None else f"{at:g}×" for at in asked.places]
    rows = []
    for condition in study.conditions:
        cells = []
        for at in asked.places:
            found = means.get((condition, asked.as_trained(condition), at))
            text = short(found, asked) if found else "–"
            if found and found.n_seeds < len(condition.runs):  # else a seed that diverged would leave without a word
                text += f" ({found.n_seeds} of {len(condition.runs)} seeds finite)"
            cells.append(f"**{text}**" if condition in ahead[at] and len(study.conditions) > 1 else text)
        here = means.get((condition, asked.as_trained(condition), asked.places[0]))
        sure = "–" if here is None else solved_text(here.solved) if here.solved else ends(here, asked)
        kept = [_effective(condition, asked, means)] if len(asked.places) > 1 else []
        others = [_mean([run.last(metric) for run in condition.runs]) for metric in more]
        rows.append(
            [condition.label, f"{condition.parameters:,}", str(len(condition.runs)), *cells, *kept, sure, *others]
        )
    where = "" if asked.places[0] is None else f" at {asked.places[0]:g}×"
    interval = f"solved{where} [{CONFIDENCE:.0%}]" if asked.solved else f"{CONFIDENCE:.0%} interval{where}"
    effective = ["effective length"] if len(asked.places) > 1 else []
    header = ["condition", "parameters", "seeds", *columns, *effective, interval, *more]
    return Table(header, rows, frozenset(range(1, len(header))), _values_caption(study, asked))


def _effective(condition: Condition, asked: Question, means: figures.Means) -> str:
    """The longest context that keeps 85 % of the score; `+` where no longer one was read."""
    reading = asked.as_trained(condition)
    found = {at: means.get((condition, reading, at)) for at in asked.multiples}
    values = {at: estimate.mean for at, estimate in found.items() if estimate is not None}
    kept = effective_length(values, is_loss=not asked.share)
    return "–" if kept is None else f"{kept:g}×{'+' * (kept == max(values))}"


def _values_caption(study: Study, asked: Question) -> str:
    text = "Mean (smallest to largest seed)"
    if len(study.conditions) > 1:
        text += "; strong: what leads"
    if len(asked.places) > 1:
        score = "share of exact answers" if asked.share else "probability of a token"
        text += f"; effective length: the longest up to which {KEPT_SHARE:.0%} of the {score} is kept, +: or more"
    if asked.solved:
        text += f"; solved: runs with {asked.solved:g} of exact answers or more, interval (Wilson) over runs"
    elif not asked.share:
        text += "; interval of the mean over seeds (Student)"
    return f"{text}. {_scale(study)}"


def _curves(study: Study, asked: Question, said: str) -> Iterator[Block]:
    """The first metric that somebody logged while learning; the finding is the figure's title."""
    drawn = ((metric, figures.curves_figure(study, metric, headline(said))) for metric in (asked.curve, *DEFAULTS))
    for metric, figure in drawn:
        if figure is not None:
            yield Heading("While learning")
            caption = (
                f"`{metric}` against source tokens: means over seeds, bands from the smallest seed to the largest."
            )
            yield Picture(
                "curves",
                figures.png(figure),
                f"{caption} Drawn, not tested: runs are compared at their ends. {_scale(study)}",
            )
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
    return Table(header, rows, frozenset(range(1, 7)), f"Means over seeds. {_scale(study)}")


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


def _mean(values: Sequence[float], form: str = ".4g") -> str:
    known = [value for value in values if math.isfinite(value)]
    return f"{np.mean(known):{form}}" if known else "–"


def _median(run: Run, metric: str) -> float:
    _, values = run.logged(metric)
    return float(np.median(values)) if len(values) else math.nan
