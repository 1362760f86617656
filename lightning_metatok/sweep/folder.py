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
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.files import write_atomically
from lightning_metatok.sweep.expand import PlannedRun, sources

PLAN, SWEEP = "plan.json", "sweep.yaml"

RUNNING, DONE, FAILED, STOPPED = "running", "done", "failed", "stopped"
"""States that a run's process writes. A signal stopped it: it goes on where its checkpoint is."""
WAITING, DIED, DAMAGED, QUEUED = "waiting", "died", "damaged", "queued"
"""States that are read off: nothing written yet; the process is gone; files are missing; SLURM has it."""
UNFINISHED = (WAITING, STOPPED, DIED)
"""What `run` starts. What failed would fail again: `retry` starts that."""
FAULTY = (FAILED, DAMAGED)


@dataclass(frozen=True)
class State:
    """What is known of a run. Times are seconds since 1970; `job` is SLURM's, such as 12_3; `attempt` counts from 1."""

    state: str = WAITING
    attempt: int = 0
    pid: int | None = None
    host: str | None = None
    job: str | None = None
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    spent_s: float = 0.0
    """Seconds of all attempts that ended."""
    why: str = ""


class SweepFolder:
    """The files of one sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path

    # -- plan

    def exists(self) -> bool:
        """Whether runs were started here."""
        return (self.path / PLAN).is_file()

    def write_plan(self, runs: Sequence[PlannedRun], text: str, code: str, finished: Sequence[str]) -> None:
        """Take up `runs`, with the text of their sweep file. Runs of an earlier version of it stay on the disk."""
        content = {"code": code, "finished": list(finished), "runs": [run.as_dict() for run in runs]}
        try:
            for name in ("runs", "specs", "logs", "states", "submissions"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / SWEEP, text)
            write_atomically(self.path / PLAN, json.dumps(content))
        except OSError as error:
            raise UserError(f"folder={self.path}: cannot be written: {error.strerror}") from error

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
            content = json.loads((self.path / PLAN).read_text(encoding="utf-8"))
            runs = [PlannedRun.from_dict(run) for run in content["runs"]]
            return runs, content["code"], content["finished"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.path / PLAN}: damaged; `lightning-metatok sweep run FILE` writes it anew"
            ) from error

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
        """Copy the package, once a version, and the config files, once a content; return where each config is."""
        target = self.code(version)
        if not (target / package.name).is_dir():
            temporary = target.with_name(f".{version}.{os.getpid()}")
            shutil.rmtree(temporary, ignore_errors=True)
            for source in sources(package):
                copy = temporary / source.relative_to(package.parent)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, target)
        copies = {}
        for name in configs:
            text = Path(name).read_text(encoding="utf-8")
            digest = hashlib.sha256(text.encode()).hexdigest()[:10]
            copies[name] = self.path / "configs" / f"{Path(name).stem}-{digest}.yaml"
            copies[name].parent.mkdir(parents=True, exist_ok=True)
            write_atomically(copies[name], text)
        return copies

    # -- what a run is started with

    def write_spec(self, run: PlannedRun, version: str, copies: Mapping[str, Path]) -> None:
        """Note what `run` is started with, so that it is started with the same again, whatever is changed meanwhile."""
        here = replace(run, configs=tuple(str(copies[path]) for path in run.configs))
        arguments = [*here.arguments(), f"--run_dir={self.run_folder(run.name)}", "--ckpt_path=auto"]
        write_atomically(self.path / "specs" / f"{run.name}.json", json.dumps({"code": version, "fit": arguments}))

    def read_spec(self, name: str) -> tuple[str, list[str]]:
        """Return the code version of a run, and the arguments of its `fit`: it starts in its folder or goes on there.

        Raises:
            UserError: there is no such run, or its file is damaged.
        """
        path = self.path / "specs" / f"{name}.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return content["code"], content["fit"]
        except FileNotFoundError:
            known = [other.stem for other in path.parent.glob("*.json")]
            raise UserError(f"{name}: no such run in {self.path}{nearest(name, known)}") from None
        except (ValueError, KeyError, TypeError) as error:
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
        try:
            return State(**json.loads((self.path / "states" / f"{name}.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return State()
        except (ValueError, TypeError):
            return State(DAMAGED, why=f"states/{name}.json cannot be read")

    def write_state(self, name: str, state: State) -> None:
        """Write what became of a run."""
        write_atomically(self.path / "states" / f"{name}.json", json.dumps(asdict(state)))

    def state(self, name: str, finished: Sequence[str] = (), jobs: Mapping[str, str] | None = None) -> State:
        """What became of a run: what it wrote, checked against processes, files and SLURM.

        Args:
            name: of the run. finished: metrics that it must have logged. jobs: jobs of runs that SLURM knows, by name.
        """
        found = self.written_state(name)
        if found.state == RUNNING and found.job is None and not _alive(found):
            return replace(found, state=DIED, why=f"process {found.pid} on {found.host} is gone")
        if found.state == RUNNING and jobs is not None and found.job is not None and name not in jobs:
            return replace(found, state=DIED, why=f"job {found.job} is gone")
        if found.state in (WAITING, STOPPED) and jobs is not None and name in jobs:
            return replace(found, state=QUEUED, job=jobs[name])
        if found.state == DONE:
            logged = last_values(self.run_folder(name))
            if logged is None:
                return replace(found, state=DAMAGED, why=f"runs/{name}/metrics.jsonl cannot be read")
            if missing := [metric for metric in finished if metric not in logged]:
                return replace(found, state=FAILED, why=f"did not log {', '.join(missing)}")
        if found.state == FAILED and not found.why:
            return replace(found, why=self.last_line(name))
        return found

    def last_line(self, name: str) -> str:
        """The last line that a run printed, for a table."""
        return next((line.strip() for line in _last_lines(self.log(name)) if line.strip()), "")

    def step(self, name: str) -> int:
        """The last step that a run logged."""
        for line in _last_lines(self.run_folder(name) / "metrics.jsonl"):
            try:
                return int(json.loads(line)["step"])
            except (ValueError, KeyError, TypeError):
                continue
        return 0

    # -- who works here

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder against a second process that would start the same runs.

        Raises:
            UserError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        owner = self.path / "owner"
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            who = owner.read_text(encoding="utf-8").strip() if owner.is_file() else "another process"
            raise UserError(f"{self.path}: {who} runs this sweep; expected one at a time") from error
        try:
            write_atomically(owner, f"process {os.getpid()} on {socket.gethostname()}\n")
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    def owner(self) -> int | None:
        """The process of this machine that runs the sweep now."""
        try:
            words = (self.path / "owner").read_text(encoding="utf-8").split()
        except OSError:
            return None
        return int(words[1]) if words[-1] == socket.gethostname() and _exists(int(words[1])) else None


def begin(folder: SweepFolder, name: str, job: str | None) -> State:
    """Write that this process runs `name`; return the state."""
    before = folder.written_state(name)
    state = State(
        RUNNING, before.attempt + 1, os.getpid(), socket.gethostname(), job, time.time(), spent_s=before.spent_s
    )
    folder.write_state(name, state)
    return state


def end(folder: SweepFolder, name: str, begun: State, exit_code: int) -> State:
    """Write how a run ended: 0 done, 128 + n stopped by signal n, else failed; return the state."""
    now = time.time()
    state = DONE if exit_code == 0 else STOPPED if exit_code in (130, 138, 143) else FAILED
    spent = begun.spent_s + now - (begun.started or now)
    ended = replace(begun, state=state, pid=None, ended=now, exit_code=exit_code, spent_s=spent)
    if state == FAILED:
        ended = replace(ended, why=folder.last_line(name))
    folder.write_state(name, ended)
    return ended


def last_values(run_folder: Path) -> dict[str, Any] | None:
    """The last value of everything that a run logged; None where nothing can be read."""
    values: dict[str, Any] = {}
    try:
        with (run_folder / "metrics.jsonl").open(encoding="utf-8") as file:
            for line in file:
                values |= json.loads(line)
    except (OSError, ValueError, TypeError):
        return None
    return values


def _last_lines(path: Path) -> list[str]:
    """The lines in the last 8 kB of a file, the last one first; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            return file.read().decode("utf-8", "replace").split("\n")[::-1]
    except OSError:
        return []


def _alive(state: State) -> bool:
    """A process of another machine is believed."""
    return state.host != socket.gethostname() or (state.pid is not None and _exists(state.pid))


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A child that ended and was not waited for still has its number.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True
