"""A signal that asks a process to end is obeyed between two units of work, never in the middle of one.

    fit           SIGTERM, SIGINT, SIGUSR1 and SIGHUP set a flag. Training reads it between two optimiser steps, and
                  `heed` between the units of all other long work: batches of a validation, chunks of text
    other verbs   SIGTERM and SIGHUP end them at once, but through every `finally`, as Ctrl-C does

Nothing heavy is imported here: the handlers stand before torch is loaded, so that an early signal kills nothing.
A second SIGINT ends the process at once. SIGHUP that is ignored at the start (nohup) stays ignored.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""What asks a run to stop; of several that came, the first of these counts."""


class Stopped(BaseException):
    """The run was asked to stop, and its checkpoint is complete. No error, so no `except Exception` takes it."""

    def __init__(self, number: int, step: int, lost: str = "") -> None:
        super().__init__(f"{signal.Signals(number).name} at step {step}{lost and f' ({lost})'}")
        self.number, self.step = number, step
        self.command: str | None = None
        """What to type to go on, where that is known."""

    @property
    def code(self) -> int:
        """Exit code, as shells count: 128 + the signal. Never 0: a job that was preempted is not done."""
        return 128 + self.number


class Asked(BaseException):
    """A signal came between two units of work outside a training step; who knows the run makes it `Stopped`.

    Attributes:
        number: the signal. lost: what was being done, and is done again, as the end of a sentence.
    """

    def __init__(self, number: int, lost: str) -> None:
        super().__init__(f"{signal.Signals(number).name} {lost}")
        self.number, self.lost = number, lost


class Ended(BaseException):
    """A verb that trains nothing was told to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when the one that made it dies."""


def end_with(parent: int) -> None:
    """Let this process be killed when `parent`, which forked it, ends in any way. Does nothing outside Linux."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died in between
        os._exit(1)


_state = {"received": 0, "owner": 0}


def received() -> int:
    """The signal that came, or 0. What cancels a job outweighs SIGUSR1: it must not come back."""
    return _state["received"]


def heed(lost: str) -> None:
    """Between two units of work before training: end it if a signal came.

    Raises:
        Asked: one came; `lost` says what is done again.
    """
    if number := received():
        raise Asked(number, lost)


@contextmanager
def only_set_a_flag() -> Iterator[None]:
    """Install the handlers of `fit`, in the main thread; put back what was there afterwards."""
    with _handlers(dict.fromkeys(SIGNALS, _handle)):
        yield


@contextmanager
def end_at_once() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Ended`, in the main thread; put back what was there afterwards."""
    with _handlers(dict.fromkeys((signal.SIGTERM, signal.SIGHUP), _end)):
        yield


@contextmanager
def _handlers(handlers: Mapping[int, object]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.update(received=0, owner=os.getpid())
    before = {number: signal.getsignal(number) for number in handlers}
    if before.get(signal.SIGHUP) == signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, handlers[number])  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _state["received"] = 0


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _state["owner"]:  # a forked helper, which its parent ends
        if number == signal.SIGTERM:
            os._exit(128 + number)
        return
    if number == signal.SIGINT and _state["received"] == signal.SIGINT:
        os._exit(128 + number)
    if number != signal.SIGUSR1 or not _state["received"]:
        _state["received"] = number


def _end(number: int, frame: FrameType | None) -> NoReturn:
    if os.getpid() != _state["owner"]:
        os._exit(128 + number)
    raise Ended(number)
