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


def script(folder: SweepFolder, resources: Resources, names_file: Path, n: int, code: Path) -> str:
    """Return the batch script of an array of `n` runs, whose names stand in `names_file`, a line each."""
    limit = f"%{resources.concurrency}" if resources.concurrency else ""
    wanted = {
        "job-name": f"metatok-{folder.path.name}",
        "array": f"0-{n - 1}{limit}",
        "partition": resources.partition,
        "nodes": resources.nodes,
        "ntasks-per-node": resources.tasks_per_node,
        "gpus-per-node": resources.gpus_per_node or None,
        "cpus-per-task": resources.cpus_per_task,
        "mem": resources.memory,
        "time": resources.minutes,
        "signal": f"USR1@{resources.signal_lead_s}",
        "output": (folder.path / "logs" / "slurm-%A_%a.log").resolve(),
        "open-mode": "append",
    }
    lines = [f"#SBATCH --{key}={value}" for key, value in wanted.items() if value is not None]
    lines += ["#SBATCH --requeue" if resources.requeue else "#SBATCH --no-requeue"]
    lines += [line if line.startswith("#SBATCH") else f"#SBATCH {line}" for line in resources.sbatch]
    exports = [f'export {key}="{value}"' for key, value in environment(code, resources.cpus_per_task).items()]
    command = " ".join(f"'{part}'" for part in interpreter())
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            "",
            *exports,
            f"name=$(sed -n \"$((SLURM_ARRAY_TASK_ID + 1))p\" '{names_file.resolve()}')",
            f"exec srun --kill-on-bad-exit=1 {command} sweep exec '{folder.path.resolve()}' \"$name\"",
            "",
        ]
    )


def submit(folder: SweepFolder, resources: Resources, names: Sequence[str], code: Path) -> Submission:
    """Hand an array job of these runs to SLURM, and note its number.

    Raises:
        UserError: there is no SLURM here, or it refuses; its own words are passed on.
    """
    number = len(list((folder.path / "submissions").glob("*.json"))) + 1
    names_file = folder.path / "submissions" / f"{number}.names"
    script_file = folder.path / "submissions" / f"{number}.sh"
    write_atomically(names_file, "".join(f"{name}\n" for name in names))
    write_atomically(script_file, script(folder, resources, names_file, len(names), code))
    job = _call(["sbatch", "--parsable", str(script_file)]).strip().partition(";")[0]
    submission = Submission(job, tuple(names))
    write_atomically(folder.path / "submissions" / f"{number}.json", json.dumps({"job": job, "names": list(names)}))
    return submission


def submit_after(folder: SweepFolder, job: str, code: Path, arguments: Sequence[str], partition: str | None) -> str:
    """Hand in a job that calls `lightning-metatok` with `arguments` when all runs of `job` have ended."""
    exports = " ".join(f"{key}={value}" for key, value in environment(code, 1).items())
    command = " ".join(f"'{part}'" for part in [*interpreter(), *arguments])
    options = [f"--partition={partition}"] if partition else []
    output = (folder.path / "logs" / "slurm-collect-%j.log").resolve()
    return _call(
        [
            *("sbatch", "--parsable", f"--dependency=afterany:{job}", "--job-name=metatok-collect", "--time=30"),
            *(f"--output={output}", *options, f"--wrap=env {exports} {command}"),
        ]
    ).strip()


def submissions(folder: SweepFolder) -> list[Submission]:
    """All array jobs of a sweep."""
    found = []
    for path in sorted((folder.path / "submissions").glob("*.json"), key=lambda p: int(p.stem)):
        content = json.loads(path.read_text(encoding="utf-8"))
        found.append(Submission(content["job"], tuple(content["names"])))
    return found


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
    known = {}
    by_job = {submission.job: submission for submission in handed_in}
    for line in listed.splitlines():
        job, index, state = line.strip().split("|")
        if job in by_job and index.isdigit() and state not in GONE:
            known[by_job[job].names[int(index)]] = f"{job}_{index}"
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
