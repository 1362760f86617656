"""Worker processes end with the run that they work for, however it ends, and never before it.

A signal to the process group (`timeout`, systemd, batch systems, Ctrl-C) reaches workers, too. They do not hear it: the
run stops at a step border, which may need another batch, and ends them then.
"""

import errno
import multiprocessing.queues
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from lightning_metatok import signals
from lightning_metatok.errors import WorkerError

SHARED_MEMORY = Path("/dev/shm")
NO_ROOM, TOO_MANY_FILES, CANNOT_SEND = 74, 75, 76
"""Exit codes of a worker whose batch could not be sent, by the reason."""
SENDING = f"; batches are sent through {SHARED_MEMORY}"
FATES = {
    NO_ROOM: f"found no room for a batch{SENDING}",
    TOO_MANY_FILES: "has too many open files; `ulimit -n` allows no more",
    CANNOT_SEND: "could not send a batch",
}


class Loader(DataLoader):
    """A DataLoader whose workers, if any, start deaf to signals and with room for what they send."""

    sends_tensors = True
    """Whether batches are tensors, which go through shared memory; NumPy arrays go through a pipe."""

    def __iter__(self) -> _BaseDataLoaderIter:
        """Start the workers, or let the persistent ones begin anew.

        Raises:
            WorkerError: shared memory has no room for the batches that are on their way at one time.
        """
        if not self.num_workers or sys.platform != "linux":
            return super().__iter__()
        if self._iterator is None and self.sends_tensors:
            self._check_room()
        # A worker inherits what is blocked: none reaches it before `end_with_parent` has its say.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)
        try:
            return super().__iter__()
        except OSError as error:  # queues have semaphores there
            if error.errno != errno.ENOSPC:
                raise
            raise WorkerError(f"{SHARED_MEMORY} is full; free some, or take --data.num_workers=0") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def check_worker_number_rationality(self) -> None:
        """Leave out torch's warning about more workers than cores: a container may have one, and batches are cheap."""

    def _check_room(self) -> None:
        needed = self.num_workers * (self.prefetch_factor or 1) * _shared_bytes(self._first())
        free = shutil.disk_usage(SHARED_MEMORY).free
        if free < needed:
            raise WorkerError(
                f"{SHARED_MEMORY} has {free / 1024:,.0f} kB free, and the batches of {self.num_workers} workers take "
                f"{needed / 1024:,.0f} kB; free some, give a container more (--shm-size), or take --data.num_workers=0"
            )

    def _first(self) -> Any:
        return next((self.dataset[index] for index in self.sampler), None)


def make_loader(dataset: Any, num_workers: int, *, sends_tensors: bool = True, **options: Any) -> Loader:
    """Return a loader of `dataset`, whose items are batches, in `num_workers` processes; `options` are DataLoader's."""
    loader = Loader(
        dataset,
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context=start_method(num_workers),
        worker_init_fn=end_with_parent if num_workers else None,
        generator=torch.Generator(),  # else starting an iterator would draw from the global one
        **options,
    )
    loader.sends_tensors = sends_tensors
    return loader


def start_method(num_workers: int) -> str | None:
    """How workers are made: forked on Linux, from 3.14 on not Python's default there; None leaves it to Python.

    A forkserver would stand between a run and its workers: it outlives a run that is killed, and they with it.
    """
    return "fork" if num_workers and sys.platform == "linux" else None


def end_with_parent(worker: int) -> None:
    """Hear no signal that asks a run to stop, end when the run does, and say so where a batch cannot be sent.

    A `worker_init_fn`. Does nothing outside Linux. torch's own watchdog does not end a worker that waits to send a
    large batch: it holds the reading end of the pipe itself, so that the write never fails, and stays for ever.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    signals.end_with(parent)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)
    threading.Thread(target=_obey, args=(parent,), daemon=True).start()
    # Python would print a traceback, drop the batch, and let the run wait for it for ever.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_cannot_send)  # type: ignore[attr-defined]
    # The thread that hands out shared memory would print one, too, where the run ends between two of its messages.
    sys.excepthook = _say_unless_hung_up


def _obey(parent: int) -> None:
    """Take what other processes send, and end on the SIGTERM of the run alone."""
    while True:
        came = signal.sigwaitinfo(signals.SIGNALS)
        if came.si_signo == signal.SIGTERM and came.si_pid == parent:
            os._exit(0)


def _say_unless_hung_up(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, EOFError | OSError):
        sys.__excepthook__(kind, error, trace)


def _cannot_send(error: BaseException, batch: Any) -> None:
    if "Too many open files" in str(error):
        os._exit(TOO_MANY_FILES)
    if "No space left on device" in str(error):
        os._exit(NO_ROOM)
    print(f"data worker {os.getpid()}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(CANNOT_SEND)


@contextmanager
def name_dead_worker() -> Iterator[None]:
    """One line on a worker that died, in place of torch's traceback.

    Raises:
        WorkerError: a worker was killed or ended; its pid and the cause are named.
    """
    try:
        yield
    except RuntimeError as error:
        # torch knows the cause of the first one, and tells it in the exception below the one that it raises.
        for one in (error.__cause__, error.__context__, error):
            if found := re.match(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", str(one), re.DOTALL):
                raise WorkerError(
                    f"data worker {found[1]} {_fate(' '.join(found[2].split()))}; "
                    "--ckpt_path=auto goes on, --data.num_workers=0 needs none"
                ) from error
        raise


def _fate(fate: str) -> str:
    """What torch says of a worker's end, and what that means."""
    if code := re.search(r"exit code (\d+)", fate):
        return FATES.get(int(code[1]), fate.removesuffix("."))
    if "Bus error" in fate:
        return f"is killed by signal: Bus error{SENDING}, which has no room left"
    fate = fate.partition(". ")[0].removesuffix(".")
    return f"{fate}; the kernel kills so where memory is short" if fate.endswith("Killed") else fate


def _shared_bytes(batch: Any) -> int:
    """Bytes of shared memory that sending `batch` takes: those of its tensors, NumPy arrays go through a pipe."""
    if isinstance(batch, torch.Tensor):
        return batch.nbytes
    if isinstance(batch, dict | list | tuple):
        return sum(map(_shared_bytes, batch.values() if isinstance(batch, dict) else batch))
    return sum(map(_shared_bytes, vars(batch).values())) if hasattr(batch, "__dict__") else 0
