"""Whether runs were scored on the same text: what `arm.json` says of it, and when nothing may be paired.

    "scored_text": {"fingerprint": "9f2c...", "targets": 48960, "bytes_per_target": 2.562}    of the validation text

Two runs with different fingerprints are not compared at all: one text may be easier, by the same amount for all seeds,
which no interval over seeds can see. Runs of text without a fingerprint are compared, but nothing is paired. Held-out
prompts of a task need none: its options decide them, and those are checked.
"""

from collections.abc import Sequence
from typing import Any

from lightning_metatok.errors import UserError
from lightning_metatok.report.runs import NO_MATTER, SEEDS, Run

KEY = "scored_text"
NOT_KNOWN = "text not known to be the same: nothing is paired"


def fingerprint(run: Run) -> str | None:
    """Return the fingerprint of the targets that a run is scored on; None where it does not say."""
    found = _scored(run).get("fingerprint")
    return None if found is None else str(found)


def is_known(runs: Sequence[Run]) -> bool:
    """Whether runs that `check_text` let pass are known to be scored on the same text."""
    return all(run.config.get("data.task") is not None or fingerprint(run) is not None for run in runs)


def check_text(runs: Sequence[Run]) -> None:
    """Raise `UserError` where two runs are known to be scored on different text; it names what they differ in."""
    known = [run for run in runs if fingerprint(run) is not None]
    for run in known[1:]:
        if fingerprint(run) != fingerprint(known[0]):
            raise UserError(
                f"{run.folder}: scored on {_shown(run)}, but {known[0].folder} on {_shown(known[0])} "
                f"({_why(run, known[0])}); expected the same text"
            )


def _scored(run: Run) -> dict[str, Any]:
    found = run.arm.get(KEY)
    if found is None:
        return {}
    if not isinstance(found, dict) or not isinstance(found.get("fingerprint"), str):
        raise UserError(f"{run.folder}/arm.json: {KEY}={found}: expected a fingerprint in it, as `fit` writes it")
    return found


def _shown(run: Run) -> str:
    found = _scored(run)
    n = found.get("targets")
    return f"text {found['fingerprint'][:12]}" + (f" of {n:,} targets" if isinstance(n, int) else "")


def _why(run: Run, other: Run) -> str:
    """The settings of the data in which two runs differ; that marks take the place of text, where they do."""
    keys = [key for key in dict.fromkeys([*run.config, *other.config]) if key.startswith("data.")]
    free = NO_MATTER | set(SEEDS) | {"data.batch_size"}
    differing = [key for key in keys if run.config.get(key) != other.config.get(key) and key not in free]
    parts = [f"{key}={run.config.get(key)} and {other.config.get(key)}" for key in differing]
    if any(one.config.get("data.meta_length") == "within" for one in (run, other)):
        parts.append("with data.meta_length=within marks take the place of text, with grow they do not")
    return "; ".join(parts) or "their settings of data are the same"
