"""Where a run goes on: which checkpoint, and what becomes of the rest of its folder."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning_metatok.errors import UserError
from lightning_metatok.lit.checkpoints import CHECKPOINTS
from lightning_metatok.lit.checkpoints.folder import LAST, forget_after, look_through
from lightning_metatok.lit.checkpoints.io import unfinished
from lightning_metatok.lit.checkpoints.log_state import mend_logs

SHOWN = 3
"""Damaged checkpoints that a refusal names; the rest is counted."""


def newest_to_go_on_from(run_dir: Path, warn: Callable[[str], object]) -> Path | None:
    """The newest checkpoint of a run that counts, `warn` hears of newer ones that do not; None: there never was one.

    Raises:
        UserError: there are some, and none of them counts. To begin again would cost them and the logs.
    """
    folder = run_dir / CHECKPOINTS
    found, faults = look_through(folder)
    lost = [f"{path.name}: {fault}" for path, fault in faults.items() if not unfinished(path)]
    if found is None and not lost and os.path.lexists(folder / LAST):
        last = folder / LAST
        lost = [f"{LAST}: {f'{os.readlink(last)} is missing' if last.is_symlink() else 'it has no manifest'}"]
    if found is None and lost:
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        raise UserError(
            f"--ckpt_path=auto: no checkpoint in {folder} is valid ({'; '.join(lost[:SHOWN])}{more}), and none is "
            f"deleted; --ckpt_path={folder}/step-N.ckpt reads one that only lost its manifest; to start over, move "
            f"{folder} away or take another run_dir"
        )
    for path, fault in faults.items():
        warn(f"{path} is skipped: {fault}")
    return found


def go_back(
    folder: Path,
    step: int,
    saved: Mapping[str, Any],
    warn: Callable[[str], object],
) -> tuple[int, list[str]]:
    """Leave nothing in a run folder that is younger than the checkpoint of `step`, which a run goes on from.

    Args:
        saved: what RunState left in the checkpoint; empty where the run begins, or the checkpoint is older than that.

    Returns:
        what `mend_logs` could not mend.
    """
    forget_after(folder / CHECKPOINTS, step)
    return mend_logs(folder, saved, step, warn) if "logs" in saved or step == 0 else (0, [])
