"""Real processes with real signals, forked from a server that has loaded torch and Lightning once.

Not from the process of the tests: it has threads, whose locks a fork would take over. A child writes a mark into a
pipe when a phase of the run begins or ends, so that the parent can strike inside it:

    cache     prepared data are built          checkpoint  the files of one are written, last.ckpt moves, old ones go
    training  one micro-batch                  end         behind the last step: the final table, picture, events
    validation
"""

import atexit
import contextlib
import multiprocessing
import os
import select
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import lightning_metatok.cli.training  # noqa: F401  (so that the server has loaded it)
from lightning_metatok.cli import main
from tests.system.helpers import lines

PHASES = ("cache", "training", "validation", "checkpoint", "end")
CLOCKS = tuple(f"throughput/{name}" for name in ("tokens_per_s", "model_tflop_per_s", "mfu", "peak_memory_gb"))
"""What a clock or the allocator says, which no two runs share."""
TEXT = [
    *("--model.dropout=0.1", "--data.batch_size=2", "--trainer.accumulate_grad_batches=2", "--trainer.max_steps=12"),
    *("--trainer.val_check_interval=8", "--trainer.log_every_n_steps=1", "--data.validation_blocks=4"),
]
TASK = [
    *("--model.n_layers=1", "--model.n_heads=2", "--model.d_model=16", "--model.dropout=0.1"),
    *("--model.optimizer.warmup_steps=0", "--model.optimizer.lr=2e-2", "--data.batch_size=8"),
    *("--data.validation_examples=24", "--data.test_examples=24", "--trainer.max_steps=12"),
    *("--trainer.val_check_interval=4", "--trainer.log_every_n_steps=1", "--trainer.precision=32-true"),
    # What stands at the end: one question about each ablation.
    *(
        f"--{name}.{option}"
        for name in ("lengths", "positions", "embedding", "placement")
        for option in ("multiples=[1]", "n=8")
    ),
    *("--positions.where=[both]", "--embedding.with_positions=false", "--placement.marks=[removed]"),
    "--data.curriculum=[{options: {n_lists: [2, 2]}, steps: 5}, {options: {n_lists: [2, 3]}}]",
]
LIMIT = 120.0
"""Seconds that one process may take."""


@dataclass
class Child:
    """A run in a process of its own. `marks` holds (seconds since the start, phase, "<" or ">")."""

    process: BaseProcess
    pipe: Connection
    log: Path
    started: float = field(default_factory=time.monotonic)
    marks: list[tuple[float, str, str]] = field(default_factory=list)
    _rest: str = ""

    def wait_for(self, phase: str, number: int) -> bool:
        """Wait until `phase` has begun `number` + 1 times; False where the child ended before."""
        while sum(mark[1:] == (phase, "<") for mark in self.marks) <= number:
            if not self._read():
                return False
        return True

    def wait(self) -> int:
        """Wait for the end, also of workers, which hold the pipe, too; the exit code, negative for a signal."""
        while self._read():
            pass
        self.pipe.close()
        self.process.join(LIMIT)
        assert self.process.exitcode is not None
        return self.process.exitcode

    def strike(self, number: int, *, group: bool = False) -> None:
        """Send the process a signal, or its whole group, data workers included."""
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):  # it was done a moment before
            (os.killpg if group else os.kill)(self.process.pid, number)

    def _read(self) -> bool:
        left = LIMIT - (time.monotonic() - self.started)
        if left <= 0 or not select.select([self.pipe], [], [], left)[0]:
            self.process.kill()
            raise TimeoutError(f"a child took more than {LIMIT} s:\n{self.log.read_text()}")
        content = os.read(self.pipe.fileno(), 65536)
        *complete, self._rest = (self._rest + content.decode()).split("\n")
        now = time.monotonic() - self.started
        self.marks += [(now, line[1:], line[0]) for line in complete]
        return bool(content)


SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([__name__])


def launch(arguments: list[str], log: Path, environment: Mapping[str, str] | None = None) -> Child:
    """Start a child that calls `lightning-metatok` with `arguments` and appends what it says to `log`."""
    reading, writing = SERVER.Pipe(duplex=False)
    process = SERVER.Process(target=_child, args=(arguments, log, dict(environment or {}), writing))
    process.start()
    atexit.register(process.kill)  # where a test fails, the end of the tests waits for no run that has none
    writing.close()
    return Child(process, reading, log)


def _child(arguments: list[str], log: Path, environment: dict[str, str], pipe: Connection) -> None:
    code = 70
    try:
        os.setpgid(0, 0)
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        os.environ.update(environment)
        tempfile.tempdir = None  # TMPDIR may be another now
        _mark_phases(pipe.fileno())
        code = main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _mark_phases(pipe: int) -> None:
    """Let the functions that make a phase say when they begin and end; what they do stays as it is."""
    from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop

    from lightning_metatok.data import cache
    from lightning_metatok.lit.callbacks import RunCheckpoint
    from lightning_metatok.lit.loops import BorderedEpochLoop, BorderedFitLoop

    pid = os.getpid()

    def wrap(owner: Any, name: str, phase: str) -> None:
        inner: Callable[..., Any] = getattr(owner, name)

        def marked(*args: Any, **kwargs: Any) -> Any:
            if os.getpid() == pid:
                os.write(pipe, f"<{phase}\n".encode())
            result = inner(*args, **kwargs)
            if os.getpid() == pid:
                os.write(pipe, f">{phase}\n".encode())
            return result

        setattr(owner, name, marked)

    wrap(cache, "damage", "cache")
    wrap(BorderedEpochLoop, "advance", "training")
    wrap(_EvaluationLoop, "run", "validation")
    wrap(RunCheckpoint, "_save", "checkpoint")
    wrap(BorderedFitLoop, "on_run_end", "end")


def durations(child: Child) -> dict[str, float]:
    """Seconds that each phase took on average; that of the cache is the whole time before training."""
    total: dict[str, float] = {}
    count: dict[str, int] = {}
    begun: dict[str, float] = {}
    for seconds, phase, edge in child.marks:
        if edge == "<":
            begun[phase] = seconds
        else:
            total[phase] = total.get(phase, 0.0) + seconds - begun[phase]
            count[phase] = count.get(phase, 0) + 1
    means = {phase: total[phase] / count[phase] for phase in total}
    first = {phase: next(seconds for seconds, name, _ in child.marks if name == phase) for phase in total}
    return {**means, "cache": first["training"] - first["cache"]}


def differences(run: Path, other: Path) -> list[str]:
    """What two finished runs differ in: weights, optimiser, metrics.jsonl and events, but for clocks."""
    one, two = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (run, other))
    found = [f"{name} is not equal" for name in ("state_dict", "optimizer_states", "lr_schedulers")
             if not same(one[name], two[name])]  # fmt: skip
    mine, theirs = ([list(_without_clocks(line).items()) for line in lines(folder)] for folder in (run, other))
    found += [f"metrics.jsonl: {a} is not {b}" for a, b in zip(mine, theirs, strict=False) if a != b]
    if len(mine) != len(theirs):
        found.append(f"metrics.jsonl: {len(mine)} lines, not {len(theirs)}")
    files = [list(folder.glob("events.out.tfevents.*")) for folder in (run, other)]
    if [len(names) for names in files] != [1, 1]:
        return [*found, f"event files: {files}"]
    ours, others = (events(names[0]) for names in files)
    found += [f"events: {a} is not {b}" for a, b in zip(ours, others, strict=False) if a != b]
    if len(ours) != len(others):
        found.append(f"events: {len(ours)} values, not {len(others)}")
    leftovers = [path.name for path in run.rglob(".*")]
    return found + [f"{name} was left" for name in leftovers]


def same(one: Any, two: Any) -> bool:
    """Whether two nested states are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def events(path: Path) -> list[tuple[int, str, float | None]]:
    """Every value of an event file as it was written: step, tag and, for a scalar that no clock gave, the value."""
    found = []
    for event in EventFileLoader(str(path)).Load():
        for value in event.summary.value:
            scalar = list(value.tensor.float_val) if value.HasField("tensor") else []
            number = scalar[0] if len(scalar) == 1 and value.tag not in CLOCKS else None
            found.append((event.step, value.tag, number))
    return found


def _without_clocks(line: dict[str, Any]) -> dict[str, Any]:
    return {name: None if name in CLOCKS else value for name, value in line.items()}


class Undisturbed:
    """The runs that others are compared with, each made when it is first asked for."""

    def __init__(self, quick: list[str], repository: Path, folder: Path) -> None:
        self.folder = folder
        self.commands = {
            "text": ["fit", *quick, *TEXT],
            "task": ["fit", f"--config={repository / 'conf' / 'task' / 'list_recall_nano.yaml'}", *TASK],
        }
        self._seconds: dict[str, dict[str, float]] = {}

    def __call__(self, kind: str) -> tuple[Path, dict[str, float]]:
        """The folder of the run, and the seconds that its phases took."""
        run = self.folder / kind
        if kind not in self._seconds:
            cache = {"LIGHTNING_METATOK_CACHE": str(self.folder / f"{kind}-cache")}
            child = launch([*self.commands[kind], f"--run_dir={run}"], self.folder / f"{kind}.log", cache)
            assert child.wait() == 0, child.log.read_text()
            self._seconds[kind] = durations(child)
        return run, self._seconds[kind]
