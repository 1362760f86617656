"""`sweep exec FOLDER RUN`: one run of a sweep in this process, which a worker or a SLURM task calls.

Not for hands: `sweep run` and the batch script write this command.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning_metatok.errors import UserError
from lightning_metatok.sweep import SweepFolder
from lightning_metatok.sweep.folder import begin, end


def execute(argv: Sequence[str]) -> int:
    """Run one run of a sweep in this process: what a worker or a SLURM task calls, with the folder and the name."""
    from lightning_metatok.cli import main as call

    if len(argv) != 2:
        raise UserError(f"sweep exec: expected the folder of a sweep and the name of a run, got {len(argv)} arguments")
    sweep, name = SweepFolder(Path(argv[0])), argv[1]
    _, arguments = sweep.read_spec(name)
    number = os.environ.get("SLURM_PROCID") or os.environ.get("LOCAL_RANK") or ""
    rank = int(number) if number.isdecimal() else 0
    log = sweep.log(name) if rank == 0 else sweep.log(f"{name}.rank{rank}")
    with sweep.writing():
        log.parent.mkdir(exist_ok=True)
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        begun = begin(sweep, name, _slurm_job()) if rank == 0 else None
    sys.stdout.flush()
    os.dup2(target, 1)
    os.dup2(target, 2)
    if begun is None:
        return call(["fit", *arguments])
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
