"""A progress bar in steps and tokens, with tokens per second, time left and the latest losses.

On a terminal it is a live bar; elsewhere (a log file, CI) it is one line every `every_s` seconds.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lightning_metatok.data import Batch
from lightning_metatok.lit.callbacks.throughput import MFU
from lightning_metatok.lit.data.protocol import data_of
from lightning_metatok.lit.micro_steps import micro_step

EVERY_S_LIVE = 0.1


def _bar(text: str, console: Console) -> Progress:
    """A live bar with `text` between its share and its times."""
    columns = TextColumn("[bold]{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn(text)
    return Progress(*columns, TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(), console=console)


def short(count: float) -> str:
    """``1234567`` -> ``1.23M``."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


class TokenProgress(ProgressBar):
    """Progress of a fit in optimiser steps and tokens; of other verbs in batches.

    Args:
        every_s: Seconds between two lines where there is no terminal.
    """

    def __init__(self, every_s: float = 15.0) -> None:
        super().__init__()
        self.every_s = every_s
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._enabled = True
        self._tokens = self._batches = 0
        self._clock = self._last_line = time.monotonic()
        self._total: int | None = None

    def disable(self) -> None:
        """Show nothing (ranks other than 0)."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        if self._enabled:
            (self._bar.console if self._bar else self._console).print(*args, **kwargs)

    # -- fit

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar at the step that training starts from."""
        self._start(trainer, "train", trainer.max_steps if trainer.max_steps > 0 else None, trainer.global_step)

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Note which batch this is; the optimiser may have stepped when it ends."""
        self._micro_step = micro_step(trainer, batch_idx)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Move on by one step."""
        self._tokens += data_of(trainer).counts(self._micro_step).tokens
        self._batches += 1
        if self._batches == 1:
            self._clock = time.monotonic()  # the first step compiles and warms up: no rate from it
        if not self._shows(trainer.global_step):
            self._done = trainer.global_step
            return
        rate = (
            self._tokens * (1 - 1 / self._batches) / max(time.monotonic() - self._clock, 1e-9)
            if self._batches > 1
            else 0.0
        )
        losses = {"loss/train": float(pl_module.measured["loss/train"])}  # type: ignore[index]
        if "loss/val" in (known := trainer.callback_metrics):
            losses["loss/val"] = float(known["loss/val"])
        mfu = f"MFU {float(known[MFU]):.1%}  " if MFU in known else ""
        status = f"{short(self._tokens)} tokens  {short(rate)} tok/s  {mfu}" + "  ".join(
            f"{name.split('/')[1]} {value:.3f}" for name, value in losses.items()
        )
        self._move(trainer.global_step, status)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._stop()

    # -- validate, test, predict

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a bar for the verb `validate`; inside a fit the training bar stays."""
        if trainer.state.fn == "validate":
            self._start(trainer, "validate", _total(trainer.num_val_batches))

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Move on by one batch."""
        if trainer.state.fn == "validate":
            self._step()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar of the verb `validate`."""
        if trainer.state.fn == "validate":
            self._stop()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar."""
        self._start(trainer, "test", _total(trainer.num_test_batches))

    def on_test_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Move on by one batch."""
        self._step()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._stop()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar."""
        self._start(trainer, "predict", _total(trainer.num_predict_batches))

    def on_predict_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Move on by one batch."""
        self._step()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self._stop()

    # -- other long work

    @contextmanager
    def work(self, name: str, total: float) -> Iterator[Callable[[float, str], None]]:
        """Show how far work that is no training step has come, with the time left; the bar of training makes room.

        Args:
            name: what is done. total: its size, in any unit.

        Yields:
            a function (how much was done since the last call, what is being done).
        """
        started, shown, done = time.monotonic(), time.monotonic(), 0.0
        live = self._enabled and sys.stderr.isatty()
        if live:
            if self._bar is not None:
                self._bar.stop()  # rich shows one at a time
            bar = _bar("{task.fields[status]}", self._console)
            task = bar.add_task(name, total=total, status="")
            bar.start()

        def move(more: float, what: str) -> None:
            nonlocal shown, done
            done, now = done + more, time.monotonic()
            if live:
                bar.update(task, completed=done, status=what)
            elif self._enabled and now - shown >= self.every_s and done:
                shown, left = now, (now - started) / done * max(0.0, total - done)
                print(f"{name}: {min(1.0, done / total):.0%}  {what}  ETA {left:.0f} s", file=sys.stderr, flush=True)

        try:
            yield move
        finally:
            if live:
                bar.stop()
                if self._bar is not None:
                    self._bar.start()

    # -- the bar itself

    def _start(self, trainer: Trainer, name: str, total: int | None, completed: int = 0) -> None:
        self._name, self._total, self._done = name, total, completed
        self._tokens, self._batches, self._clock = 0, 0, time.monotonic()
        self._last_line = time.monotonic()
        if not self._enabled or not sys.stderr.isatty():
            return
        self._bar = _bar("{task.completed:.0f}/{task.total:.0f} steps  {task.fields[status]}", self._console)
        self._bar.start()
        self._task = self._bar.add_task(name, total=total, completed=completed, status="")

    def _step(self) -> None:
        self._move(self._done + 1, "")

    def _shows(self, completed: int) -> bool:
        """Whether it is time: what is shown may have to be fetched from a device, and nobody reads ten in a second."""
        if not self._enabled:
            return False
        if self._bar is not None and completed == self._total:
            return True
        return time.monotonic() - self._last_line >= (self.every_s if self._bar is None else EVERY_S_LIVE)

    def _move(self, completed: int, status: str) -> None:
        started, self._done = self._done, completed
        if self._bar is not None:
            self._last_line = time.monotonic()
            self._bar.update(self._task, completed=completed, status=status)
        elif self._enabled and time.monotonic() - self._last_line >= self.every_s and completed > started:
            self._last_line = time.monotonic()
            elapsed = time.monotonic() - self._clock
            left = ""
            if self._total and self._batches > 1:
                left = f"  ETA {elapsed / (self._batches - 1) * (self._total - completed):.0f} s"
            print(
                f"{self._name}: {completed}/{self._total or '?'} steps  {status}{left}",
                file=sys.stderr,
                flush=True,
            )

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _total(counts: list[int | float]) -> int | None:
    total = sum(counts)
    return None if total == float("inf") else int(total)


@contextmanager
def progress_of(trainer: Trainer, name: str, total: float) -> Iterator[Callable[[float, str], None]]:
    """`TokenProgress.work` of this trainer; nothing is shown where it has no such bar."""
    bar = next((c for c in trainer.callbacks if isinstance(c, TokenProgress)), None)  # type: ignore[attr-defined]
    if bar is None or total <= 0:
        yield lambda more, what: None
        return
    with bar.work(name, total) as move:
        yield move
