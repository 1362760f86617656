"""`sweep`: one YAML file, many runs.

    lightning-metatok sweep plan    sweeps/x.yaml              the runs, what they cost, the sbatch script
    lightning-metatok sweep run     sweeps/x.yaml              run what is not finished (--on local | slurm)
    lightning-metatok sweep status  sweeps/x.yaml              what became of each
    lightning-metatok sweep cancel  sweeps/x.yaml              stop; runs take a checkpoint first
    lightning-metatok sweep retry   sweeps/x.yaml              run what failed, too
    lightning-metatok sweep collect sweeps/x.yaml [--out FILE] one table of all runs

A finished run is never done again; a run that was stopped goes on where it was. The same run is one with the same
configuration and the same code.
"""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import lightning_metatok
from lightning_metatok.cli.option_names import option_names
from lightning_metatok.cli.sweep_view import RunTable, duration, summary
from lightning_metatok.cli.yaml_files import read_config
from lightning_metatok.errors import OptionParser, UserError, nearest
from lightning_metatok.old_keys import old_options
from lightning_metatok.sweep import PlannedRun, SweepFolder, SweepSpec, expand, read_spec, slurm
from lightning_metatok.sweep.collect import collect, write_table
from lightning_metatok.sweep.expand import all_configs, code_version
from lightning_metatok.sweep.folder import DONE, FAULTY, QUEUED, RUNNING, UNFINISHED, State, begin, end
from lightning_metatok.sweep.local import run_locally

PACKAGE = Path(lightning_metatok.__file__).parent
ROOT = Path("runs/sweeps")
ACTIONS = ("plan", "run", "status", "cancel", "retry", "collect")
SHOWN = 40
"""Rows of a table that fit before `--all` is needed."""


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read, and where it lives."""

    file: Path
    spec: SweepSpec
    runs: list[PlannedRun]
    folder: SweepFolder
    code: str

    @property
    def configs(self) -> list[str]:
        """All config files."""
        return list(dict.fromkeys(path for run in self.runs for path in run.configs))


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok sweep", description=__doc__)
    parser.add_argument("action", metavar="ACTION", help=" | ".join(ACTIONS))
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="a sweep file, such as sweeps/length_extrapolation.yaml"
    )
    parser.add_argument("--on", default="local", metavar="local|slurm", help="where to run (local)")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, on local (1)")
    parser.add_argument("--folder", type=Path, help=f"where the sweep lives ({ROOT}/NAME)")
    parser.add_argument("--out", type=Path, help="collect: a .csv or .parquet file (table.csv in the folder)")
    parser.add_argument("--all", action="store_true", help="plan, status: every run, however many")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Do one action; return 0, or 1 where runs failed."""
    argv = list(argv)
    if argv[:1] == ["exec"]:
        return execute(*argv[1:])
    arguments = build_parser().parse(argv)
    action = arguments.action
    if action not in ACTIONS:
        raise UserError(f"sweep {action}: expected one of {', '.join(ACTIONS)}{nearest(action, ACTIONS)}")
    if arguments.on not in ("local", "slurm"):
        raise UserError(f"--on={arguments.on}: expected local or slurm{nearest(arguments.on, ('local', 'slurm'))}")
    if arguments.workers < 1:
        raise UserError(f"--workers={arguments.workers}: expected at least 1")
    sweep = read_sweep(arguments.file, arguments.folder)
    if action == "plan":
        return plan(sweep, everything=arguments.all)
    if action == "run":
        return run(sweep, UNFINISHED, on=arguments.on, workers=arguments.workers, fresh=True)
    sweep = as_started(sweep)
    if action == "retry":
        return run(sweep, (*UNFINISHED, *FAULTY), on=arguments.on, workers=arguments.workers, fresh=False)
    if action == "status":
        return status(sweep, everything=arguments.all)
    if action == "cancel":
        return cancel(sweep)
    return collected(sweep, arguments.out)


def read_sweep(file: Path, folder: Path | None) -> Sweep:
    """Read and check a sweep file and the configs that it names.

    Raises:
        UserError: no such file, or a mistake in it.
    """
    if not file.is_file():
        siblings = [str(path) for path in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
        raise UserError(f"{file}: no such file{nearest(str(file), siblings)}; expected a sweep file")
    spec = read_spec(read_config(str(file)), str(file))
    code = code_version(PACKAGE)
    runs = expand(spec, code, lambda path: _read_part(file, path))
    known = [*option_names(code, _is_task(spec)), *old_options()]
    for key in spec.set_keys():
        if key not in known and not any(key.startswith(f"{name}.") for name in _mappings(known)):
            raise UserError(f"{file}: {key}: no such key of the configuration{nearest(key, known)}")
    return Sweep(file, spec, runs, SweepFolder(folder or Path(spec.folder or ROOT / file.stem)), code)


def as_started(sweep: Sweep) -> Sweep:
    """Return the sweep with the runs and the code that were started, which the file and the code may have left behind.

    Raises:
        UserError: nothing was started.
    """
    runs, code, _ = sweep.folder.read_plan()
    if [run.name for run in runs] != [run.name for run in sweep.runs]:
        print(
            f"{sweep.file}, a config or the code has changed since these runs were started: "
            "this is about what was started; `run` starts what the file says now",
            file=sys.stderr,
        )
    return replace(sweep, runs=runs, code=code)


def _read_part(file: Path, path: str) -> dict[str, object]:
    if not Path(path).is_file():
        siblings = [str(p) for p in Path(path).parent.glob("*.y*ml")] if Path(path).parent.is_dir() else []
        raise UserError(f"{file}: configs: {path}: no such file{nearest(path, siblings)}")
    return dict(read_config(path))


def _is_task(spec: SweepSpec) -> bool:
    """Whether a recall task is trained: which keys there are depends on it."""
    if "data.task" in spec.set_keys():
        return True
    contents = [read_config(path) for path in all_configs(spec)]
    return any(isinstance(c.get("data"), dict) and c["data"].get("task") for c in contents)


def _mappings(known: Sequence[str]) -> list[str]:
    """Options whose value is a mapping, so that keys below them are not listed."""
    return [name for name in known if name.endswith("_options")]


# -- actions


def plan(sweep: Sweep, *, everything: bool) -> int:
    """Print the runs, what is finished, what is left, and the script for SLURM."""
    console = Console()
    states = _states(sweep, ask_slurm=False)
    table = Table(title=f"{sweep.file}: {len(sweep.runs)} runs in {sweep.folder.path}", title_justify="left")
    axes = sweep.spec.axes()
    for name in ("id", *(axis.rpartition(".")[2] for axis in axes), "state"):
        table.add_column(name, no_wrap=True)
    shown = sweep.runs if everything else sweep.runs[:SHOWN]
    for run in shown:
        table.add_row(run.id, *(escape(str(run.axes.get(axis, ""))) for axis in axes), states[run.name].state)
    console.print(table)
    if len(shown) < len(sweep.runs):
        console.print(f"and {len(sweep.runs) - len(shown)} more (--all shows them)", highlight=False)
    left = [run for run in sweep.runs if states[run.name].state in UNFINISHED]
    total = 60 * sweep.spec.minutes * len(left)
    console.print(
        f"left: {len(left)} runs of about {sweep.spec.minutes:g} min: {duration(total)} one after the other, "
        f"{duration(total / 2)} with --workers 2",
        highlight=False,
    )
    text = slurm.script(
        sweep.folder,
        sweep.spec.resources,
        sweep.folder.path / "submissions" / "N.names",
        max(1, len(left)),
        sweep.folder.code(sweep.code),
    )
    console.print(f"\nwith --on slurm:\n\n{text}", highlight=False, markup=False, soft_wrap=True)
    return 0


def run(sweep: Sweep, kinds: Sequence[str], *, on: str, workers: int, fresh: bool) -> int:
    """Run everything whose state is one of `kinds`; `fresh`: what the file and the code say now, else as started."""
    folder, console = sweep.folder, Console(stderr=True)
    with folder.held():
        if fresh:
            folder.write_plan(sweep.runs, sweep.file.read_text(encoding="utf-8"), sweep.code, sweep.spec.finished)
            copies = folder.take_snapshot(PACKAGE, sweep.configs, sweep.code)
            for planned in sweep.runs:
                folder.write_spec(planned, sweep.code, copies)
        code = folder.code(sweep.code)
        states = _states(sweep, ask_slurm=True)
        wanted = [run for run in sweep.runs if states[run.name].state in kinds]
        done = sum(state.state == DONE for state in states.values())
        console.print(f"{len(sweep.runs)} runs: {done} done, {len(wanted)} to run", highlight=False)
        if earlier := folder.earlier_runs(sweep.runs):
            console.print(f"{len(earlier)} runs of an earlier version of the sweep or the code stay as they are")
        if not wanted:
            return _verdict(states)
        if on == "slurm":
            submission = slurm.submit(folder, sweep.spec.resources, [run.name for run in wanted], code)
            collect_arguments = ["sweep", "collect", str(sweep.file.resolve()), f"--folder={folder.path.resolve()}"]
            after = slurm.submit_after(folder, submission.job, code, collect_arguments, sweep.spec.resources.partition)
            console.print(
                f"array job {submission.job}: {len(wanted)} runs; job {after} collects when all have ended\n"
                f"look at it: lightning-metatok sweep status {sweep.file} --folder {folder.path}",
                highlight=False,
            )
            return 0
        with RunTable(folder, sweep.runs, sweep.spec.minutes, workers) as table:
            run_locally(folder, wanted, code, workers, table.watch)
        states = _states(sweep, ask_slurm=False)
        console.print(summary(states), highlight=False)
        if any(state.state == DONE for state in states.values()):
            collected(sweep, None)
    return _verdict(states)


def status(sweep: Sweep, *, everything: bool) -> int:
    """Print what became of each run."""
    states = _states(sweep, ask_slurm=True)
    console = Console()
    rows = [(run, states[run.name]) for run in sweep.runs]
    if not everything:
        busy = [row for row in rows if row[1].state in (RUNNING, *FAULTY)]
        rows = (busy + [row for row in rows if row not in busy])[:SHOWN] if len(rows) > SHOWN else rows
    table = Table(title=f"{sweep.file} in {sweep.folder.path}", title_justify="left")
    table.add_column("run", no_wrap=True, overflow="ellipsis")
    for name, width in (("state", 7), ("step", 6), ("tries", 5), ("time", 13), ("job", 8)):
        right = name in ("step", "tries", "time")
        table.add_column(name, justify="right" if right else "left", no_wrap=True, min_width=width)
    for planned, state in rows:
        running = time.time() - state.started if state.state == RUNNING and state.started else 0.0
        table.add_row(
            planned.name,
            state.state,
            str(sweep.folder.step(planned.name) or ""),
            str(state.attempt or ""),
            duration(state.spent_s + running) if state.attempt else "",
            state.job or "",
        )
    console.print(table)
    if len(rows) < len(sweep.runs):
        console.print(f"and {len(sweep.runs) - len(rows)} more (--all shows them)", highlight=False)
    for planned, state in rows:
        if state.why:
            console.print(f"{state.state} {planned.name}: {state.why}", highlight=False, markup=False, soft_wrap=True)
    console.print(summary(states), highlight=False)
    return 0


def cancel(sweep: Sweep) -> int:
    """Stop the runs of this machine and of SLURM."""
    stopped = slurm.cancel(sweep.folder) if sweep.folder.exists() else 0
    if (owner := sweep.folder.owner()) is not None:
        os.kill(owner, signal.SIGTERM)
        print(f"process {owner}, which runs this sweep, ends its runs at their next checkpoint")
    print(f"{stopped} runs cancelled in SLURM")
    return 0


def collected(sweep: Sweep, out: Path | None) -> int:
    """Write the table of all runs."""
    out = out or sweep.folder.path / "table.csv"
    jobs = slurm.queue(sweep.folder)
    table = collect(sweep.folder, sweep.runs, sweep.spec.finished, sweep.spec.collect, jobs)
    write_table(table, out)
    print(f"{out}: {len(table)} runs, {int((table['state'] == DONE).sum())} of them done")
    return 0


def execute(folder: str, name: str) -> int:
    """Run one run of a sweep in this process: what a worker or a SLURM task calls."""
    from lightning_metatok.cli import main as call

    sweep = SweepFolder(Path(folder))
    _, arguments = sweep.read_spec(name)
    rank = int(os.environ.get("SLURM_PROCID") or os.environ.get("LOCAL_RANK") or 0)
    log = sweep.log(name) if rank == 0 else sweep.log(f"{name}.rank{rank}")
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    os.dup2(target, 1)
    os.dup2(target, 2)
    if rank:
        return call(["fit", *arguments])
    begun = begin(sweep, name, _slurm_job())
    exit_code = 1
    try:
        exit_code = call(["fit", *arguments])
    finally:
        sys.stdout.flush()
        end(sweep, name, begun, exit_code)
    return exit_code


def _slurm_job() -> str | None:
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else None


def _states(sweep: Sweep, *, ask_slurm: bool) -> dict[str, State]:
    jobs = slurm.queue(sweep.folder) if ask_slurm else None
    return {run.name: sweep.folder.state(run.name, sweep.spec.finished, jobs) for run in sweep.runs}


def _verdict(states: dict[str, State]) -> int:
    counts = Counter(state.state for state in states.values())
    return 0 if counts[DONE] + counts[QUEUED] + counts[RUNNING] == len(states) else 1
