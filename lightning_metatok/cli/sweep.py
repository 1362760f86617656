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

import argparse
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lightning_metatok.cli.bounds import PATH
from lightning_metatok.cli.sweep_exec import execute
from lightning_metatok.cli.sweep_file import PACKAGE, ROOT, Sweep, as_started, check_keys, read_sweep
from lightning_metatok.cli.sweep_values import check_values
from lightning_metatok.cli.sweep_view import RunTable, duration, summary
from lightning_metatok.console import printer
from lightning_metatok.errors import OptionParser, UserError, nearest
from lightning_metatok.sweep import slurm
from lightning_metatok.sweep.collect import collect, write_table
from lightning_metatok.sweep.local import environment, run_locally
from lightning_metatok.sweep.processes import Process, parent_of
from lightning_metatok.sweep.record import DONE, FAULTY, QUEUED, RUNNING, UNFINISHED, State

ACTIONS = ("plan", "run", "status", "cancel", "retry", "collect")
SHOWN = 40
"""Rows of a table that fit before `--all` is needed."""


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok sweep", description=__doc__)
    parser.add_argument("action", metavar="ACTION", help=" | ".join(ACTIONS))
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="a sweep file, such as sweeps/length_extrapolation.yaml"
    )
    parser.add_argument("--on", default="local", metavar="local|slurm", help="where to run (local)")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, on local (1)")
    parser.add_argument("--folder", type=_path, help=f"where the sweep lives ({ROOT}/NAME)")
    parser.add_argument("--out", type=_path, help="collect: a .csv or .parquet file (table.csv in the folder)")
    parser.add_argument("--all", action="store_true", help="plan, status: every run, however many")
    return parser


def _path(text: str) -> Path:
    valid, expected = PATH
    if not text.strip() or not valid(text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}")
    return Path(text)


def main(verb: str, argv: Sequence[str]) -> int:
    """Do one action; return 0, or 1 where runs failed."""
    argv = list(argv)
    if argv[:1] == ["exec"]:
        return execute(argv[1:])
    arguments = build_parser().parse(argv)
    action = arguments.action
    if action not in ACTIONS:
        raise UserError(f"sweep {action}: expected one of {', '.join(ACTIONS)}{nearest(action, ACTIONS)}")
    if arguments.on not in ("local", "slurm"):
        raise UserError(f"--on={arguments.on}: expected local or slurm{nearest(arguments.on, ('local', 'slurm'))}")
    if arguments.workers < 1:
        raise UserError(f"--workers={arguments.workers}: expected at least 1")
    sweep = read_sweep(arguments.file, arguments.folder)
    if action in ("plan", "run"):
        check_keys(sweep)
    if action == "plan":
        check_values(sweep.file, sweep.runs, "task" if sweep.trains_a_task else "text", sweep.code)
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


# -- actions


def plan(sweep: Sweep, *, everything: bool) -> int:
    """Print the runs, what is finished, what is left, and the script for SLURM."""
    console = printer()
    states = _states(sweep, ask_slurm=False)
    table = Table(title=escape(f"{sweep.file}: {len(sweep.runs)} runs in {sweep.folder.path}"), title_justify="left")
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
    names, code = sweep.folder.path / "submissions" / "N.names", sweep.folder.code(sweep.code)
    try:
        text = "\n" + slurm.script(sweep.folder, sweep.spec.resources, names, max(1, len(left)), code)
    except UserError as error:
        text = f"refused: {error}"
    _say(console, f"\nwith --on slurm:\n{text}")
    return 0


def run(
    sweep: Sweep,
    kinds: Sequence[str],
    *,
    on: str,
    workers: int,
    fresh: bool,
) -> int:
    """Run everything whose state is one of `kinds`; `fresh`: what the file and the code say now, else as started."""
    folder, console = sweep.folder, Console(stderr=True)
    folder.check_file(sweep.file)
    code, partition = folder.code(sweep.code), sweep.spec.resources.partition
    collecting = ["sweep", "collect", str(sweep.file.resolve()), f"--folder={folder.path.resolve()}"]
    environment(code, 1)
    if on == "slurm":  # what a script cannot hold is refused before anything is written
        slurm.script(folder, sweep.spec.resources, folder.path, 1, code)
        slurm.after_command(folder, "0", code, collecting, partition)
    with folder.held():
        if fresh:
            text = sweep.file.read_text(encoding="utf-8")
            folder.write_plan(sweep.runs, text, sweep.code, sweep.spec.finished, sweep.file.name)
            copies = folder.take_snapshot(PACKAGE, sweep.configs, sweep.code)
            for planned in sweep.runs:
                folder.write_spec(planned, sweep.code, copies)
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
            after = slurm.submit_after(folder, submission.job, code, collecting, partition)
            _say(
                console,
                f"array job {submission.job}: {len(wanted)} runs; job {after} collects when all have ended\n"
                f"look at it: lightning-metatok sweep status {quote(str(sweep.file))} "
                f"--folder={quote(str(folder.path))}",
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
    console = printer()
    rows = [(run, states[run.name]) for run in sweep.runs]
    if not everything:
        busy = [row for row in rows if row[1].state in (RUNNING, *FAULTY)]
        rows = (busy + [row for row in rows if row not in busy])[:SHOWN] if len(rows) > SHOWN else rows
    table = Table(title=escape(f"{sweep.file} in {sweep.folder.path}"), title_justify="left")
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
            _say(console, f"{state.state} {planned.name}: {state.why}")
    console.print(summary(states), highlight=False)
    return 0


def cancel(sweep: Sweep) -> int:
    """Stop the runs of this machine and of SLURM."""
    owner, processes = sweep.folder.owner_process(), sweep.folder.processes()
    # It passes the signal on to what it started itself; a process that was killed has left its runs behind.
    left = [p for p in processes if owner is None or not owner.is_here() or parent_of(p.pid) != owner.pid]
    here = len(processes) - len(left)
    if owner is not None and owner.is_here() and _terminate(owner):
        print(f"process {owner.pid}, which runs this sweep, ends its runs at their next checkpoint")
    elif owner is not None and not owner.is_here():
        print(f"process {owner.pid} on {owner.host} runs this sweep; cancel it there")
    for process in left:
        if _terminate(process):
            here += 1
            print(f"process {process.pid}, whose sweep is gone, ends at its next checkpoint")
    there = slurm.cancel(sweep.folder)
    print(f"{here + there} runs cancelled: {here} on this machine, {there} in SLURM")
    return 0


def _terminate(process: Process) -> bool:
    try:
        return process.send(signal.SIGTERM)
    except PermissionError as error:
        raise UserError(f"process {process.pid}: it is another user's; expected that user to cancel it") from error


def collected(sweep: Sweep, out: Path | None) -> int:
    """Write the table of all runs."""
    out = out or sweep.folder.path / "table.csv"
    jobs = slurm.queue(sweep.folder)
    table = collect(sweep.folder, sweep.runs, sweep.spec.finished, sweep.spec.collect, jobs)
    write_table(table, out)
    print(f"{out}: {len(table)} runs, {int((table['state'] == DONE).sum())} of them done")
    return 0


def _say(console: Console, text: str) -> None:
    """Print text as it is, whatever it holds, without breaks of rich's."""
    console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _states(sweep: Sweep, *, ask_slurm: bool) -> dict[str, State]:
    jobs = slurm.queue(sweep.folder) if ask_slurm else None
    return {run.name: sweep.folder.state(run.name, sweep.spec.finished, jobs) for run in sweep.runs}


def _verdict(states: dict[str, State]) -> int:
    counts = Counter(state.state for state in states.values())
    return 0 if counts[DONE] + counts[QUEUED] + counts[RUNNING] == len(states) else 1
