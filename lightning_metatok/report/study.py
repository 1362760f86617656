"""What a report is about: the finished runs of a sweep, or any run folders, as conditions; and what was left out.

A sweep's runs are grouped by its axes without the seed: `arm` and `model.position` make `meta, rotary`. Run folders
that no sweep made are grouped by their configurations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_metatok.errors import UserError
from lightning_metatok.report.runs import PLAIN, SEEDS, Condition, Run, conditions, read_run
from lightning_metatok.report.scored_text import check_text

if TYPE_CHECKING:
    import pandas as pd

DONE, DAMAGED = "done", "damaged"


@dataclass(frozen=True)
class Study:
    """Conditions side by side.

    Attributes:
        title: of the page.
        conditions: in the order in which they were asked for.
        axes: names of what conditions differ in, without the seed.
        metrics: what the sweep collects; the first is the one that counts where nothing was logged by length.
        left_out: state -> how many runs are not finished.
        seconds: run folder -> how long the run took; empty where nobody noted it.
        code: hash of the code that the runs were started with; empty where nobody noted it.
    """

    title: str
    conditions: tuple[Condition, ...]
    axes: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[Path, float] = field(default_factory=dict)
    code: str = ""

    @property
    def runs(self) -> list[Run]:
        """All runs."""
        return [run for condition in self.conditions for run in condition.runs]

    @property
    def base(self) -> Condition:
        """The condition that others are compared with: the plain one where there is one, else the first."""
        return next((condition for condition in self.conditions if condition.is_plain), self.conditions[0])


def of_runs(folders: Sequence[Path], title: str) -> Study:
    """Return the study of run folders.

    Raises:
        UserError: a folder that is no run, a run twice, or runs on different data or text.
    """
    runs = [read_run(folder) for folder in folders]
    groups = conditions(runs)
    check_text(runs)
    return Study(title, tuple(groups), ("condition",) if len(groups) > 1 else ())


def of_sweep(
    table: "pd.DataFrame",
    folders: Sequence[Path],
    axes: Sequence[str],
    seed: str,
    *,
    title: str,
    metrics: Sequence[str] = (),
    code: str = "",
) -> Study:
    """Return the study of a sweep's finished runs.

    Args:
        table: a row a run, with its `name`, `state`, `seconds` and a column an axis.
        folders: of the runs, in the order of the rows.
        axes: names of columns, `seed` among them: the axis whose values are the same condition. So are those of SEEDS.

    Raises:
        UserError: no run is finished, a folder is damaged, or runs are on different tasks or text.
    """
    states = list(table["state"])
    for folder, state in zip(folders, states, strict=True):
        if state == DAMAGED:
            raise UserError(f"{folder}: metrics.jsonl cannot be read; `lightning-metatok sweep retry` runs it again")
    left_out = {state: states.count(state) for state in dict.fromkeys(states) if state != DONE}
    if DONE not in states:
        shown = ", ".join(f"{count} {state}" for state, count in left_out.items())
        raise UserError(f"{title}: expected at least one finished run, there are {shown or 'none'}")
    others = [axis for axis in axes if axis != seed and axis not in SEEDS]
    done = table["state"] == DONE
    varying = tuple(axis for axis in others if table.loc[done, axis].nunique(dropna=False) > 1)
    groups: dict[tuple[Any, ...], list[Run]] = {}
    seconds = {}
    for row, folder in zip(table.to_dict("records"), folders, strict=True):
        if row["state"] == DONE:
            run = read_run(folder)
            groups.setdefault(tuple(row[axis] for axis in varying), []).append(run)
            seconds[folder] = float(row["seconds"])
    runs = [run for group in groups.values() for run in group]
    same_task(runs)
    check_text(runs)
    found = tuple(
        Condition(
            label(dict(zip(varying, values, strict=True))),
            int(group[0].arm["parameters"]),
            group[0].arm["arm"] == PLAIN,
            tuple(group),
            dict(zip(varying, values, strict=True)),
        )
        for values, group in groups.items()
    )
    return Study(title, found, varying, tuple(metrics), left_out, seconds, code)


def same_task(runs: Sequence[Run]) -> None:
    """Raise `UserError` where runs learn different tasks: their numbers mean different things."""
    for run in runs[1:]:
        one, other = (r.config.get("data.task") or "text" for r in (runs[0], run))
        if one != other:
            raise UserError(f"{run.folder}: data.task={other}, but {runs[0].folder} has {one}; expected one task")


def label(axes: Mapping[str, Any]) -> str:
    """Return the values of all axes, joined; what is no word goes with the last part of its key."""
    parts = [str(v) if isinstance(v, str) else f"{key.rpartition('.')[2]}={v}" for key, v in axes.items()]
    return ", ".join(parts) or "all runs"
