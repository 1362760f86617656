"""Runs as one array job of SLURM.

A plain script that anybody can read, which calls `srun`: so the warning signal reaches the training process itself
(`--signal` without `B:` goes to the steps), which takes a checkpoint at its step border, asks for its requeue and ends.
submitit would put its own process and its own signal (USR2) in between, and pickle the call.

    node fails, preempted    SLURM requeues (--requeue), the run goes on from its last checkpoint
    time limit               SIGUSR1 `signal_lead_s` before it: checkpoint, requeue, go on
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_metatok.errors import UserError
from lightning_metatok.files import write_atomically
from lightning_metatok.sweep.folder import SweepFolder
from lightning_metatok.sweep.local import environment, interpreter
from lightning_metatok.sweep.quoting import as_pattern, checked, for_sbatch, for_shell, sbatch_options
from lightning_metatok.sweep.record import UNREADABLE
from lightning_metatok.sweep.spec import Resources

GONE = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
)
"""States of jobs that will not run again."""


@dataclass(frozen=True)
class Submission:
    """An array job: its number, and the run of each index."""

    job: str
    names: tuple[str, ...]


def script(
    folder: SweepFolder,
    resources: Resources,
    names_file: Path,
    n: int,
    code: Path,
) -> str:
    """Return the batch script of an array of `n` runs, whose names stand in `names_file`, a line each.

    Raises:
        UserError: a folder or a resource that cannot be written so that bash, sbatch and SLURM read it as it is.
    """
    where, home = "folder", str(folder.path.resolve())
    limit = f"%{resources.concurrency}" if resources.concurrency else ""
    wanted = {
        "job-name": f"metatok-{folder.path.resolve().name}",
        "array": f"0-{n - 1}{limit}",
        "partition": resources.partition,
        "nodes": resources.nodes,
        "ntasks-per-node": resources.tasks_per_node,
        "gpus-per-node": resources.gpus_per_node or None,
        "cpus-per-task": resources.cpus_per_task,
        "mem": resources.memory,
        "time": resources.minutes,
        "signal": f"USR1@{resources.signal_lead_s}",
        "output": as_pattern(home, where) + "/logs/slurm-%A_%a.log",
        "open-mode": "append",
    }
    keys = {"partition": "resources.partition", "mem": "resources.memory"}
    options = [
        [for_sbatch(f"--{name}={checked(str(value), keys.get(name, where))}", where)]
        for name, value in wanted.items()
        if value is not None
    ]
    options += [["--requeue" if resources.requeue else "--no-requeue"]]
    for number, line in enumerate(resources.sbatch):
        key = f"resources.sbatch[{number}]"
        options.append([for_sbatch(word, key) for word in sbatch_options(line, key)])
    variables = environment(code, resources.cpus_per_task)
    exports = [f"export {name}={for_shell(value, name)}" for name, value in variables.items()]
    command = " ".join(for_shell(part, "sys.executable") for part in interpreter())
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {' '.join(words)}" for words in options),
            "",
            *exports,
            # srun does not inherit it since SLURM 22.05.
            f'export SRUN_CPUS_PER_TASK="${{SLURM_CPUS_PER_TASK:-{resources.cpus_per_task}}}"',
            f'name=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {for_shell(str(names_file.resolve()), where)})',
            f'exec srun --kill-on-bad-exit=1 {command} sweep exec {for_shell(home, where)} "$name"',
            "",
        ]
    )


def submit(
    folder: SweepFolder,
    resources: Resources,
    names: Sequence[str],
    code: Path,
) -> Submission:
    """Hand an array job of these runs to SLURM, and note its number.

    Raises:
        UserError: there is no SLURM here, or it refuses; its own words are passed on.
    """
    number = max(_numbers(folder), default=0) + 1
    names_file = folder.path / "submissions" / f"{number}.names"
    script_file = folder.path / "submissions" / f"{number}.sh"
    text = script(folder, resources, names_file, len(names), code)
    with folder.writing():
        write_atomically(names_file, "".join(f"{name}\n" for name in names))
        write_atomically(script_file, text)
    job = _call(["sbatch", "--parsable", str(script_file)]).strip().partition(";")[0]
    with folder.writing():
        write_atomically(folder.path / "submissions" / f"{number}.json", json.dumps({"job": job, "names": list(names)}))
    return Submission(job, tuple(names))


def submit_after(
    folder: SweepFolder,
    job: str,
    code: Path,
    arguments: Sequence[str],
    partition: str | None,
) -> str:
    """Hand in a job that calls `lightning-metatok` with `arguments` when all runs of `job` have ended.

    Raises:
        UserError: see `submit`.
    """
    return _call(after_command(folder, job, code, arguments, partition)).strip()


def after_command(
    folder: SweepFolder,
    job: str,
    code: Path,
    arguments: Sequence[str],
    partition: str | None,
) -> list[str]:
    """The command of `submit_after`: sbatch makes a script for sh of --wrap, and reads all else as it is."""
    where = "folder"
    variables = [f"{key}={value}" for key, value in environment(code, 1).items()]
    wrap = " ".join(for_shell(part, where) for part in ["env", *variables, *interpreter(), *arguments])
    output = as_pattern(checked(str(folder.path.resolve()), where), where) + "/logs/slurm-collect-%j.log"
    options = [f"--partition={checked(partition, 'resources.partition')}"] if partition else []
    return [
        *("sbatch", "--parsable", f"--dependency=afterany:{job}", "--job-name=metatok-collect", "--time=30"),
        *(f"--output={output}", *options, f"--wrap={wrap}"),
    ]


def submissions(folder: SweepFolder) -> list[Submission]:
    """All array jobs of a sweep.

    Raises:
        UserError: what was noted of one is damaged, so that its runs cannot be told.
    """
    found = []
    for number in _numbers(folder):
        path = folder.path / "submissions" / f"{number}.json"
        try:
            content = json.loads(path.read_bytes())
            if not all(isinstance(name, str) for name in content["names"]):
                raise ValueError(content)
            found.append(Submission(str(content["job"]), tuple(content["names"])))
        except UNREADABLE as error:
            raise UserError(
                f"{path}: damaged; expected the job and its runs. Take it away once squeue no longer shows the job"
            ) from error
    return found


def _numbers(folder: SweepFolder) -> list[int]:
    return sorted(int(p.stem) for p in (folder.path / "submissions").glob("*.json") if p.stem.isdecimal())


def queue(folder: SweepFolder) -> dict[str, str] | None:
    """Return the job of every run that SLURM has, running or waiting; None where this sweep never went to SLURM.

    Raises:
        UserError: it went there, and there is no SLURM here.
    """
    handed_in = submissions(folder)
    if not handed_in:
        return None
    # All jobs of this user at once: a job that SLURM has forgotten would make `squeue --jobs` an error.
    listed = _call(["squeue", "--noheader", "--array", "--me", "--format=%F|%K|%T"])
    return waiting_or_running(listed, handed_in)


def waiting_or_running(listed: str, handed_in: Sequence[Submission]) -> dict[str, str]:
    """The job of each run in the answer of `squeue`: a line `job|index|state` an array task, other jobs among them."""
    known = {}
    by_job = {submission.job: submission for submission in handed_in}
    for line in listed.splitlines():
        job, index, state = (*line.strip().split("|"), "", "")[:3]
        names = by_job[job].names if job in by_job else ()
        if index.isdecimal() and int(index) < len(names) and state not in GONE:
            known[names[int(index)]] = f"{job}_{index}"
    return known


def cancel(folder: SweepFolder) -> int:
    """Cancel all runs that SLURM has; return how many."""
    known = queue(folder) or {}
    if known:
        _call(["scancel", *known.values()])
    return len(known)


def _call(command: list[str]) -> str:
    if shutil.which(command[0]) is None:
        raise UserError(f"{command[0]}: no such command: there is no SLURM here; expected --on local")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise UserError(f"{command[0]}: {said or f'exit code {done.returncode}'}")
    return done.stdout
