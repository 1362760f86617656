"""One run, one folder: config.yaml (a runnable copy), tokenizer.json, metrics.jsonl, checkpoints/ and events."""

from pathlib import Path

from lightning_metatok.errors import UserError

CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"


def claim_run_folder(wanted: str | Path, *, resume_from: str | Path | None = None) -> Path:
    """Make the folder of a new run, or return the folder that a resumed run goes on in.

    A folder that already holds a run is never written over: the new run takes `wanted-2`, `wanted-3`, ... Two
    processes that ask at once get different folders, because each name is taken with an exclusive mkdir.

    Raises:
        UserError: the folder cannot be made.
    """
    wanted = Path(wanted)
    if resume_from is not None:
        start = Path(resume_from)  # as it is written, too: checkpoints/ may be a link to another disk
        if start.resolve().is_relative_to(wanted.resolve()) or start.absolute().is_relative_to(wanted.absolute()):
            return wanted
    if wanted.exists() and not wanted.is_dir():
        raise UserError(f"run_dir={wanted}: expected a folder, this is a file")
    candidate, number = wanted, 1
    try:
        candidate.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                candidate.mkdir()
                return candidate
            except FileExistsError:
                if candidate.is_dir() and not any(candidate.iterdir()):
                    return candidate
                number += 1
                candidate = wanted.with_name(f"{wanted.name}-{number}")
    except OSError as error:
        raise UserError(f"run_dir={wanted}: cannot make this folder: {error.strerror}") from error
