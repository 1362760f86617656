"""SIGTERM, SIGINT and SIGUSR1 only set a flag, which the training loop reads between two optimiser steps.

Nothing heavy is imported here: the handlers stand before torch is loaded, so that an early signal kills nothing.
A second SIGINT ends the process at once.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Stopped(BaseException):
    """The run was asked to stop, and its checkpoint is complete. No error, so no `except Exception` takes it."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"{signal.Signals(number).name} at step {step}")
        self.number, self.step = number, step
        self.command: str | None = None
        """What to type to go on, where that is known."""

    @property
    def code(self) -> int:
        """Exit code, as shells count: 128 + the signal. Never 0: a job that was preempted is not done."""
        return 128 + self.number


_state = {"received": 0, "owner": 0}


def received() -> int:
    """The signal that came, or 0. SIGTERM and SIGINT outweigh SIGUSR1: a job that is cancelled must not come back."""
    return _state["received"]


@contextmanager
def only_set_a_flag() -> Iterator[None]:
    """Install the handlers, in the main thread; put back what was there afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _state.update(received=0, owner=os.getpid())
    before = {number: signal.signal(number, _handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _state["received"] = 0


def _handle(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _state["owner"]:  # a worker, which its parent ends
        if number == signal.SIGTERM:
            os._exit(128 + number)
        return
    if number == signal.SIGINT and _state["received"] == signal.SIGINT:
        os._exit(128 + number)
    if number != signal.SIGUSR1 or not _state["received"]:
        _state["received"] = number
