"""Real processes with real signals: forked from this one, which has loaded torch and Lightning already.

A child writes a mark into a pipe when a phase of the run begins or ends, so that the parent can strike inside it:

    cache     prepared data are built          checkpoint  the files of one are written, last.ckpt moves, old ones go
    training  one micro-batch                  end         behind the last step: the final table, picture, events
    validation
"""

import contextlib
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from lightning_metatok.cli import main
from tests.system.helpers import lines

PHASES = ("cache", "training", "validation", "checkpoint", "end")
CLOCKS = ("throughput/tokens_per_s", "throughput/model_tflop_per_s", "throughput/peak_memory_gb")
"""What a clock or the allocator says, which no two runs share."""
LIMIT = 120.0
"""Seconds that one process may take."""


@dataclass
class Child:
    """A run in a process of its own. `marks` holds (seconds since the start, phase, "<" or ">")."""

    pid: int
    pipe: int
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
        """Wait for the end; the exit code, negative for a signal."""
        while self._read():
            pass
        os.close(self.pipe)
        _, status = os.waitpid(self.pid, 0)
        self._end_workers()
        return os.waitstatus_to_exitcode(status)

    def strike(self, number: int) -> None:
        """Send the process, not its workers, a signal."""
        os.kill(self.pid, number)

    def _read(self) -> bool:
        left = LIMIT - (time.monotonic() - self.started)
        if left <= 0 or not select.select([self.pipe], [], [], left)[0]:
            os.killpg(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise TimeoutError(f"a child took more than {LIMIT} s:\n{self.log.read_text()}")
        content = os.read(self.pipe, 65536)
        *complete, self._rest = (self._rest + content.decode()).split("\n")
        now = time.monotonic() - self.started
        self.marks += [(now, line[1:], line[0]) for line in complete]
        return bool(content)

    def _end_workers(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def launch(arguments: list[str], log: Path, environment: Mapping[str, str] | None = None) -> Child:
    """Fork a child that calls `lightning-metatok` with `arguments` and appends what it says to `log`."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Child(pid, reading, log)
    code = 70
    try:
        os.setsid()
        os.close(reading)
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, 1)
        os.dup2(target, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        os.environ.update(environment or {})
        tempfile.tempdir = None  # TMPDIR may be another now
        _mark_phases(writing)
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

    wrap(cache, "is_complete", "cache")
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
