"""A study in TensorBoard, laid out so that it answers without typing.

    dashboard/
      summary/              Text: the verdict. Images: the report's figures. Custom Scalars: the layout.
      meta, rotary/         a condition: means over seeds with margins; step is source tokens, or the length
        read kept/          ... with positions at meta-tokens kept, by length: a run, and so a colour, of its own
        read dropped/       ... and dropped
      runs/meta, rotary/1/  a run: its row of the HParams tab

TensorBoard draws a line for each of its runs, so that conditions lie over each other in every chart. Where a run has
some tags of a chart and not all, it says "Missing Tags": a chart has one tag. Margins are not smoothed.
"""

import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_metatok.errors import UserError
from lightning_metatok.event_file import PATTERN
from lightning_metatok.report.budgets import band
from lightning_metatok.report.contrasts import ARM
from lightning_metatok.report.estimates import SOLVED
from lightning_metatok.report.events import Events, Value, lines, margins
from lightning_metatok.report.figures import panels
from lightning_metatok.report.lengths import Question, question
from lightning_metatok.report.markdown import table
from lightning_metatok.report.page import Page, Table
from lightning_metatok.report.runs import Condition, Run
from lightning_metatok.report.samples import last_sample
from lightning_metatok.report.sections import report
from lightning_metatok.report.study import Study

SUMMARY, RUNS = "summary", "runs"
SPEED = "throughput/tokens_per_s"
CURVES = ("loss/val", "loss/train", "accuracy/exact/val", "accuracy/token/val", "bits_per_byte/val")
SEED = "seed"
AS_TRAINED = "by length/as trained"
PERCENT = 100


def write_dashboard(
    study: Study,
    out: Path,
    *,
    with_probes: bool = False,
    solved: float = SOLVED,
) -> None:
    """Write the event files into `out`: all of them new, or the old ones.

    Args:
        solved: share of exact answers from which on a run has solved its task.

    Raises:
        UserError: `out` holds something else, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not _is_ours(out))):
        raise UserError(f"--out={out}: expected a new folder, or one that `dashboard` wrote")
    page, asked = report(study, with_probes=with_probes, solved=solved), question(study, solved)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(study, asked, page, temporary)
        replace_folder(temporary, out)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    """Whether nothing but event files lies in a folder: all of it can be made again."""
    return (folder / SUMMARY).is_dir() and all(path.is_dir() or path.match(PATTERN) for path in folder.rglob("*"))


def replace_folder(new: Path, target: Path) -> None:
    """Put `new` in the place of `target` with two renames: nobody sees a folder that is half old, half new."""
    old = target.with_name(f"{new.name}.old")
    if target.exists():
        os.rename(target, old)
    os.rename(new, target)
    shutil.rmtree(old, ignore_errors=True)


def _write(study: Study, asked: Question, page: Page, folder: Path) -> None:
    groups, curves = dict(panels(study)), [name for name in CURVES if _all_logged(study, name)]
    summary = Events(folder / SUMMARY)
    _write_verdict(summary, page)
    for number, picture in enumerate(page.pictures, 1):
        summary.picture(f"report/{number} {picture.name}", picture.png)
    for condition in study.conditions:
        sample = last_sample(condition.runs[0].folder)
        if sample is not None:
            summary.text(f"3 samples/{condition.label}", sample)
    summary.layout(_layout(study, asked, groups, curves))
    rows, metrics = _rows(study), _final_metrics(study, asked)
    columns = {name: list(dict.fromkeys(row[name] for row in rows.values())) for name in next(iter(rows.values()))}
    summary.experiment(columns, [f"final/{metric}" for metric in metrics])
    summary.close()
    for name, condition in zip(folder_names(study.conditions), study.conditions, strict=True):
        events = Events(folder / name)
        for metric in curves:
            _write_curve(events, condition, metric)
        _write_speed(events, condition)
        _write_lengths(events, folder / name, condition, asked, groups)
        events.close()
        for number, run in enumerate(condition.runs):
            events = Events(folder / RUNS / name / f"{number + 1}")
            events.row(rows[run])
            for metric in metrics:
                if math.isfinite(value := run.last(metric)):
                    events.scalar(f"final/{metric}", value, int(run.lines[-1]["step"]))
            events.close()


def _write_verdict(events: Events, page: Page) -> None:
    """The finding and all tables, as one text each: TensorBoard shows them in the order of their names."""
    texts = [str(getattr(block, "text", "")) for block in page.blocks[:3]]
    tables = [block for block in page.blocks if isinstance(block, Table)]
    events.text("1 verdict", "\n\n".join([*(text for text in texts if text), table(tables[0])]))
    for number, block in enumerate(tables[1:], 1):
        events.text(f"2 tables/{number}", table(block))


def _layout(
    study: Study, asked: Question, groups: Mapping[str, Sequence[Condition]], curves: Sequence[str]
) -> dict[str, list[Any]]:
    by_length: list[Any] = []
    if asked.multiples:
        in_percent = _length_unit(study.runs[0], asked) == PERCENT
        unit = "prompt length, % of the trained" if in_percent else "context length, tokens"
        by_length.append(margins(f"all conditions as trained: {asked.quantity}, step: {unit}", [AS_TRAINED]))
        if len(asked.names) > 1 or len(groups) > 1:
            for title in groups:
                kinds = " and ".join(asked.names) if len(asked.names) > 1 else ""
                by_length.append(margins(" ".join(filter(None, (title, kinds))) + f", step: {unit}", [_tag(title)]))
    return {
        f"by length: {asked.quantity}": by_length,
        "while learning, step: source tokens": [margins(metric, [metric]) for metric in curves],
        "speed": [lines("tokens per second, step: source tokens", [SPEED])] if _all_logged(study, SPEED) else [],
    }


def _tag(title: str) -> str:
    return f"by length/{title or 'all'}"


def _write_lengths(
    events: Events, folder: Path, condition: Condition, asked: Question, groups: Mapping[str, Any]
) -> None:
    """Means by length: as trained beside the condition's curves, and every reading as a run of its own."""
    home = next(title for title, group in groups.items() if condition in group)
    unit = _length_unit(condition.runs[0], asked)
    for reading in asked.names:
        found = {
            at: values
            for at in asked.multiples
            if (values := [value for run in condition.runs if math.isfinite(value := asked.value(run, reading, at))])
        }
        own = Events(folder / f"read {reading}") if found and len(asked.names) > 1 else None
        for at, values in found.items():
            point = float(np.mean(values)), min(values), max(values), round(at * unit)
            if reading == asked.as_trained(condition):
                _write_margins(events, AS_TRAINED, *point)
            if own is not None or len(groups) > 1:
                _write_margins(own or events, _tag(home), *point)
        if own is not None:
            own.close()


def _length_unit(run: Run, asked: Question) -> int:
    """What stands for the trained length on the axis of steps, which are whole numbers."""
    block = run.config.get("data.block_size")
    return block if not asked.share and isinstance(block, int) else PERCENT


def _write_curve(events: Events, condition: Condition, metric: str) -> None:
    for spent, mean, low, high in band(condition, metric, "source_tokens").T:
        _write_margins(events, metric, mean, low, high, round(spent))


def _write_speed(events: Events, condition: Condition) -> None:
    if all(SPEED in run.metrics for run in condition.runs):
        for spent, mean, _, _ in band(condition, SPEED, "source_tokens").T:
            events.scalar(SPEED, mean, round(spent))


def _write_margins(events: Events, tag: str, mean: float, low: float, high: float, step: int) -> None:
    for name, value in (("mean", mean), ("low", low), ("high", high)):
        events.scalar(f"{tag}/{name}", float(value), step)


def _all_logged(study: Study, metric: str) -> bool:
    return all(metric in run.metrics for run in study.runs)


def _final_metrics(study: Study, asked: Question) -> list[str]:
    """What a row of the HParams tab shows: what the sweep collects, else the numbers that are compared."""
    by_length = [asked.metric(reading, at) for reading in asked.names for at in asked.places]
    wanted = study.metrics or [asked.curve, *by_length]
    return [metric for metric in dict.fromkeys(wanted) if any(metric in run.metrics for run in study.runs)]


def _rows(study: Study) -> dict[Run, dict[str, Value]]:
    """The arm, the seed and the axes that vary of every run; where one value of an axis is a text, all are."""
    rows: dict[Run, dict[str, Value]] = {}
    for condition in study.conditions:
        for run in condition.runs:
            rows[run] = {ARM: condition.axes.get(ARM, run.arm["arm"]), SEED: run.seed[0], **condition.axes}
    for name in next(iter(rows.values())):
        if not all(type(row[name]) in (int, float) for row in rows.values()):
            for row in rows.values():
                row[name] = str(row[name])
    return rows


def folder_names(conditions: Sequence[Condition]) -> list[str]:
    """Names of folders for conditions, which TensorBoard shows as names of its runs; no two are the same."""
    names: list[str] = []
    for condition in conditions:
        name = re.sub(r"[^\w.,=+ ()-]+", "_", condition.label).strip(" .") or "_"
        while name in (*names, SUMMARY, RUNS):
            name += "_"
        names.append(name)
    return names
