"""Several processes of one run under `srun`: rank 0 decides, the others follow, and each writes into a log of its own.

Processes that rank 0 starts itself inherit its environment. Those that `srun` starts inherit nothing from each other,
so rank 0 writes what it decided into a file beside the run folder, on the storage that all of them share:

    runs/.x.71.0.0.json     {"folder": "runs/x-2", "ckpt_path": null} of job 71, its step 0, before any requeue

The others wait for it before they touch the data, which one rank has prepared by then. It goes once all have met.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metatok.errors import UserError
from lightning_metatok.files import write_atomically
from lightning_metatok.signals import Asked, Stopped

LOGS = "logs"
POLL_S = 0.2


def rank() -> int:
    """The number of this process among those of the run, before they have met."""
    return _get_rank() or 0


def warn(message: str) -> None:
    """Say it on stderr, once: the processes of other ranks would say it again."""
    if rank() == 0:
        print(f"lightning-metatok: warning: {message}", file=sys.stderr)


class Meeting(Callback):
    """Where rank 0 leaves its decision for the other processes of one `srun`; without several of them it does nothing.

    Args:
        run_dir: the folder that was asked for, the same on all ranks.
    """

    def __init__(self, run_dir: str | Path) -> None:
        several = int(os.environ.get("SLURM_STEP_NUM_TASKS") or 1) > 1
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        which = ".".join(os.environ.get(name) or "0" for name in names)
        run_dir = Path(run_dir)
        self.place = run_dir.with_name(f".{run_dir.name}.{which}.json") if several else None

    def tell(self, **decision: Any) -> None:
        """Let the others know, from rank 0; the first word counts."""
        if self.place is not None and rank() == 0 and not self.place.exists():
            self.place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.place, json.dumps(decision))

    @contextmanager
    def tells_errors(self) -> Iterator[None]:
        """Where rank 0 fails inside, the others are told, and need not wait for ever."""
        try:
            yield
        except BaseException as error:
            self.tell(error=" ".join(str(error).split()) or type(error).__name__)
            raise

    def hear(self) -> dict[str, Any] | None:
        """What rank 0 decided, as soon as it has; None where nobody else decides.

        Raises:
            UserError: rank 0 could not go on.
        """
        if self.place is None or rank() == 0:
            return None
        while True:
            try:
                decision: dict[str, Any] = json.loads(self.place.read_text(encoding="utf-8"))
                break
            except FileNotFoundError:
                time.sleep(POLL_S)
        if "error" in decision:
            raise UserError(f"rank 0: {decision['error']}")
        return decision

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """All ranks are connected, so all have heard."""
        if self.place is not None and trainer.is_global_zero:
            self.place.unlink(missing_ok=True)


class RankLog:
    """Sends what ranks above 0 say to `logs/rank-N.log` of the run folder; a failure is named on the console, too."""

    def __init__(self) -> None:
        self.path: Path | None = None

    def open(self, folder: Path) -> None:
        """Begin, or go on, in the log of this rank; nothing on rank 0."""
        if rank() == 0 or self.path is not None:
            return
        self.path = folder / LOGS / f"rank-{rank()}.log"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._console = os.dup(2)
        for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
            stream.flush()
            os.dup2(file, number)
        os.close(file)

    def __enter__(self) -> "RankLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is not None:
            if error is not None and not isinstance(error, Stopped | Asked):
                os.write(self._console, f"lightning-metatok: rank {rank()} failed, see {self.path}\n".encode())
            os.close(self._console)


def end_together() -> None:
    """Close what joins the ranks once all of them are here.

    A rank that ends while its threads still talk to another one is aborted by C++ ("terminate called without an active
    exception"), and with it a job that was done.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
