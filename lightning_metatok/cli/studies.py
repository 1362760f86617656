"""What `report` and `dashboard` are asked about: a sweep's finished runs, or run folders."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_metatok.errors import OptionParser, UserError
from lightning_metatok.report.estimates import SOLVED

if TYPE_CHECKING:
    from lightning_metatok.report.study import Study


def add_arguments(parser: OptionParser, made: str) -> None:
    """Add the options that say what is shown. `made`: the folder that is written, in a sweep's folder."""
    parser.add_argument(
        "sweep", nargs="?", metavar="SWEEP.yaml", type=Path, help="a sweep file whose runs were started"
    )
    parser.add_argument("--runs", nargs="+", metavar="RUN", type=Path, help="run folders, instead of a sweep")
    parser.add_argument("--folder", type=Path, help="where the sweep lives (runs/sweeps/NAME)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=f"where to write (runs/sweeps/NAME/{made})")
    add_solved(parser)


def add_solved(parser: OptionParser) -> None:
    """Add the option that says when a run has solved its task."""
    parser.add_argument(
        "--solved", type=float, default=SOLVED, help=f"exact answers from which on a run has solved its task ({SOLVED})"
    )


def check_solved(solved: float) -> None:
    """Raise `UserError` where no accuracy can be meant."""
    if not 0 < solved <= 1:
        raise UserError(f"--solved={solved:g}: expected a share of exact answers, above 0 and at most 1")


def read_study(arguments: argparse.Namespace, verb: str, made: str) -> tuple["Study", Path]:
    """Return the study and the folder that is written.

    Raises:
        UserError: neither or both were given, or what was given cannot be shown.
    """
    check_solved(arguments.solved)
    if (arguments.sweep is None) == (not arguments.runs):
        raise UserError(f"{verb}: expected a sweep file or --runs RUN [RUN ...], one of the two")
    if arguments.out is not None and arguments.out.exists() and not arguments.out.is_dir():
        raise UserError(f"--out={arguments.out}: expected a folder, this is a file")
    if arguments.runs:
        if arguments.folder is not None:
            raise UserError(f"--folder={arguments.folder}: expected a sweep file, not --runs")
        if arguments.out is None:
            raise UserError(f"{verb} --runs: expected --out FOLDER, too")
        from lightning_metatok.report.study import of_runs

        return of_runs(arguments.runs, "Runs side by side"), arguments.out
    from lightning_metatok.cli.sweep_file import as_started, read_sweep
    from lightning_metatok.report.study import of_sweep
    from lightning_metatok.sweep import slurm
    from lightning_metatok.sweep.collect import collect
    from lightning_metatok.sweep.spec import SEED

    sweep = as_started(read_sweep(arguments.sweep, arguments.folder))
    table = collect(sweep.folder, sweep.runs, sweep.spec.finished, [], slurm.queue(sweep.folder))
    study = of_sweep(
        table,
        [sweep.folder.run_folder(run.name) for run in sweep.runs],
        sweep.spec.axes(),
        SEED,
        title=arguments.sweep.stem,
        metrics=sweep.spec.collect,
        code=sweep.code,
    )
    return study, arguments.out or sweep.folder.path / made
