"""Where a sweep lives.

runs/sweeps/x/
  sweep.yaml            the file, as it was when runs were last started
  plan.json             its runs
  code/HASH/            the package and the configs, as they were: a run that is started again runs what it began with
  runs/LABEL-ID/        the run folder that `fit` writes
  logs/LABEL-ID.log     what it printed
  states/LABEL-ID.json  what became of it
  submissions/N.json    array jobs: their number, and the run of each index
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from filelock import FileLock, Timeout

from lightning_metatok import signals
from lightning_metatok.errors import UserError, nearest
from lightning_metatok.files import write_atomically
from lightning_metatok.sweep.expand import PlannedRun, sources
from lightning_metatok.sweep.processes import Process
from lightning_metatok.sweep.record import (
    DAMAGED,
    DIED,
    DONE,
    FAILED,
    QUEUED,
    RUNNING,
    STOPPED,
    UNREADABLE,
    WAITING,
    State,
    last_lines,
    last_values,
    read_state,
)

PLAN, SWEEP, OWNER = "plan.json", "sweep.yaml", "owner"


class SweepFolder:
    """The files of one sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # -- plan

    def exists(self) -> bool:
        """Whether runs were started here."""
        return (self.path / PLAN).is_file()

    def write_plan(
        self,
        runs: Sequence[PlannedRun],
        text: str,
        code: str,
        finished: Sequence[str],
        file: str | None = None,
    ) -> None:
        """Take up `runs`, with text and name of their sweep file. Runs of an earlier version of it stay on the disk.

        Raises:
            UserError: the folder cannot be written.
        """
        content = {"file": file, "code": code, "finished": list(finished), "runs": [run.as_dict() for run in runs]}
        with self.writing():
            for name in ("runs", "specs", "logs", "states", "submissions"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / SWEEP, text)
            write_atomically(self.path / PLAN, json.dumps(content))

    def read_plan(self) -> tuple[list[PlannedRun], str, list[str]]:
        """Return the runs, the hash of their code, and the metrics that a finished run has.

        Raises:
            UserError: no sweep was started here, or its plan is damaged.
        """
        if not self.exists():
            raise UserError(
                f"{self.path}: no sweep was started here; expected `lightning-metatok sweep run FILE` first"
            )
        try:
            content = json.loads((self.path / PLAN).read_bytes())
            runs = [PlannedRun.from_dict(run) for run in content["runs"]]
            code, finished = content["code"], content["finished"]
            if not _is_name(code) or not _are_texts(finished):
                raise ValueError(code, finished)
            return runs, code, finished
        except UNREADABLE as error:
            raise UserError(
                f"{self.path / PLAN}: damaged; `lightning-metatok sweep run FILE` writes it anew"
            ) from error

    def check_file(self, file: Path) -> None:
        """Raise `UserError` where another sweep lives here than that of `file`; nothing where that is not known."""
        try:
            here = json.loads((self.path / PLAN).read_bytes())["file"]
        except UNREADABLE:
            return
        if here not in (None, file.name):
            raise UserError(f"folder={self.path}: the sweep of {here} lives here; expected a folder of {file.name}")

    def earlier_runs(self, runs: Sequence[PlannedRun]) -> list[str]:
        """Names of runs on the disk that are not in the plan."""
        known = {run.name for run in runs}
        folder = self.path / "states"
        return sorted(p.stem for p in folder.glob("*.json") if p.stem not in known) if folder.is_dir() else []

    # -- code

    def code(self, version: str) -> Path:
        """Folder of a snapshot: put it on PYTHONPATH; configs lie in it, too."""
        return self.path / "code" / version

    def take_snapshot(self, package: Path, configs: Sequence[str], version: str) -> dict[str, Path]:
        """Copy the package, once a version, and the config files, once a content; return where each config is.

        Raises:
            UserError: the folder cannot be written, or a config not be read.
        """
        with self.writing():
            target = self.code(version)
            if not (target / package.name).is_dir():
                temporary = target.with_name(f".{version}.{os.getpid()}")
                for place in (temporary, target):
                    shutil.rmtree(place, ignore_errors=True)
                for source in sources(package):
                    copy = temporary / source.relative_to(package.parent)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, copy)
                os.replace(temporary, target)
            copies = {}
            for name in configs:
                text = Path(name).read_text(encoding="utf-8")
                digest = hashlib.sha256(text.encode()).hexdigest()[:10]
                copies[name] = self.path / "configs" / f"{Path(name).stem}-{digest}.yaml"
                copies[name].parent.mkdir(parents=True, exist_ok=True)
                if not (copies[name].is_file() and copies[name].read_text(encoding="utf-8") == text):
                    write_atomically(copies[name], text)
        return copies

    # -- what a run is started with

    def write_spec(self, run: PlannedRun, version: str, copies: Mapping[str, Path]) -> None:
        """Note what `run` is started with, so that it is started with the same again, whatever is changed meanwhile."""
        here = replace(run, configs=tuple(str(copies[path]) for path in run.configs))
        arguments = [*here.arguments(), f"--run_dir={self.run_folder(run.name)}", "--ckpt_path=auto"]
        with self.writing():
            write_atomically(self.path / "specs" / f"{run.name}.json", json.dumps({"code": version, "fit": arguments}))

    def read_spec(self, name: str) -> tuple[str, list[str]]:
        """Return the code version of a run, and the arguments of its `fit`: it starts in its folder or goes on there.

        Raises:
            UserError: there is no such run, or its file is damaged.
        """
        path = self.path / "specs" / f"{name}.json"
        if not _is_name(name) or not path.exists():
            known = [other.stem for other in (self.path / "specs").glob("*.json")]
            raise UserError(f"{name}: no such run in {self.path}{nearest(name, known)}")
        try:
            content = json.loads(path.read_bytes())
            if not _is_name(content["code"]) or not _are_texts(content["fit"]):
                raise ValueError(content)
            return content["code"], content["fit"]
        except UNREADABLE as error:
            raise UserError(f"{path}: damaged; `lightning-metatok sweep run FILE` writes it anew") from error

    # -- runs

    def run_folder(self, name: str) -> Path:
        """What `fit` writes."""
        return self.path / "runs" / name

    def log(self, name: str) -> Path:
        """What the run printed, all attempts."""
        return self.path / "logs" / f"{name}.log"

    def written_state(self, name: str) -> State:
        """What the run's process wrote last."""
        return read_state(self.path / "states" / f"{name}.json")

    def write_state(self, name: str, state: State) -> None:
        """Write what became of a run."""
        with self.writing():
            write_atomically(self.path / "states" / f"{name}.json", json.dumps(asdict(state)))

    def processes(self) -> list[Process]:
        """Processes of this machine that run something of the sweep, an earlier version included, SLURM's left out."""
        states = [read_state(path) for path in sorted((self.path / "states").glob("*.json"))]
        own = [s.process for s in states if s.state == RUNNING and s.job is None and s.process is not None]
        return [process for process in own if process.is_here() and process.lives()]

    def state(self, name: str, finished: Sequence[str] = (), jobs: Mapping[str, str] | None = None) -> State:
        """What became of a run: what it wrote, checked against processes, files and SLURM.

        Args:
            name: of the run. finished: metrics that it must have logged. jobs: jobs of runs that SLURM knows, by name.
        """
        found = self.written_state(name)
        if found.state == RUNNING and found.job is None and not found.lives():
            return replace(found, state=DIED, why=f"process {found.pid} on {found.host} is gone")
        if found.state == RUNNING and jobs is not None and found.job is not None and name not in jobs:
            return replace(found, state=DIED, why=f"job {found.job} is gone")
        if found.state in (WAITING, STOPPED) and jobs is not None and name in jobs:
            return replace(found, state=QUEUED, job=jobs[name])
        if found.state == DONE:
            logged = last_values(self.run_folder(name), finished)
            if logged is None:
                return replace(found, state=DAMAGED, why=f"runs/{name}/metrics.jsonl cannot be read")
            if missing := [metric for metric in finished if metric not in logged]:
                return replace(found, state=FAILED, why=f"did not log {', '.join(missing)}")
        if found.state == FAILED and not found.why:
            return replace(found, why=self.last_line(name))
        return found

    def last_line(self, name: str) -> str:
        """The last line that a run printed, for a table."""
        return next((line.strip() for line in last_lines(self.log(name)) if line.strip()), "")

    def step(self, name: str) -> int:
        """The last step that a run logged."""
        for line in last_lines(self.run_folder(name) / "metrics.jsonl"):
            try:
                return int(json.loads(line)["step"])
            except (ValueError, KeyError, TypeError):
                continue
        return 0

    # -- who works here

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say in one line what cannot be written inside."""
        try:
            yield
        except OSError as error:
            place = error.filename2 or error.filename or self.path
            raise UserError(f"folder={self.path}: {place}: cannot be written: {error.strerror or error}") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder against a second process that would start the same runs.

        Raises:
            UserError: another process holds it, or it cannot be written.
        """
        lock = FileLock(self.path / ".lock")
        with self.writing():
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                owner = self.owner_process()
                who = f"process {owner.pid} on {owner.host}" if owner else "another process"
                raise UserError(f"{self.path}: {who} runs this sweep; expected one at a time") from error
        try:
            with self.writing():
                write_atomically(self.path / OWNER, json.dumps(asdict(Process.this())))
            yield
        finally:
            with suppress(OSError):
                (self.path / OWNER).unlink()
            lock.release()

    def owner(self) -> int | None:
        """The process of this machine that runs the sweep now."""
        owner = self.owner_process()
        return owner.pid if owner and owner.is_here() else None

    def owner_process(self) -> Process | None:
        """The process that runs the sweep now, here or on another machine."""
        try:
            content = json.loads((self.path / OWNER).read_bytes())
            owner = Process(int(content["pid"]), str(content["host"]), str(content["start"]))
        except UNREADABLE:
            return None
        return owner if owner.lives() else None


def begin(
    folder: SweepFolder,
    name: str,
    job: str | None,
    process: Process | None = None,
) -> State:
    """Write that `process`, this one if not given, runs `name`; return the state. Twice the same is one attempt."""
    process, before = process or Process.this(), folder.written_state(name)
    if before.state == RUNNING and before.process == process and before.job == job:
        return before
    state = State(
        state=RUNNING,
        attempt=before.attempt + 1,
        pid=process.pid,
        host=process.host,
        process_start=process.start,
        job=job,
        started=time.time(),
        spent_s=before.spent_s,
    )
    folder.write_state(name, state)
    return state


def end(
    folder: SweepFolder,
    name: str,
    begun: State,
    exit_code: int,
) -> State:
    """Write how a run ended: 0 done, 128 + n stopped by signal n, else failed; return the state."""
    now = time.time()
    stopped = [128 + number for number in signals.SIGNALS]
    state = DONE if exit_code == 0 else STOPPED if exit_code in stopped else FAILED
    spent = begun.spent_s + now - (begun.started or now)
    ended = replace(begun, state=state, pid=None, process_start="", ended=now, exit_code=exit_code, spent_s=spent)
    if state == FAILED:
        ended = replace(ended, why=folder.last_line(name))
    folder.write_state(name, ended)
    return ended


def _is_name(value: object) -> bool:
    """Whether it is the name of one file, as runs and versions have it."""
    return isinstance(value, str) and re.fullmatch(r"[\w.=-]+", value, re.ASCII) is not None


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)
