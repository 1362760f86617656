"""One run, one folder: config.yaml (a runnable copy), tokenizer.json, metrics.jsonl, checkpoints/ and events."""

from pathlib import Path

from lightning_metatok.errors import UserError
from lightning_metatok.files import write_atomically
from lightning_metatok.yaml_files import as_text, read_text

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


def write_config(folder: Path, text: str, step: int) -> None:
    """Write config.yaml of a run that starts, or goes on at `step`: it says what the run does from now on.

    What it said before stays, as config-before-step-N.yaml. How this start came about (`ckpt_path`, `allow_changed`)
    is no property of a run that goes on: these stay as they were when it began.
    """
    path = folder / CONFIG
    if path.exists():
        before = path.read_text(encoding="utf-8", errors="replace")
        try:
            was = dict(read_text(before, str(path)))
        except UserError:  # whatever it is, it is kept
            was = {}
        content = dict(read_text(text, str(path)))
        content |= {key: was[key] for key in ("ckpt_path", "allow_changed") if key in was}
        if content == was:
            return
        stem, number = f"config-before-step-{step}", 1
        while (kept := folder / f"{stem}{'' if number == 1 else f'-{number}'}.yaml").exists():
            number += 1
        write_atomically(kept, before)
        head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
        text = head + as_text(content)
    write_atomically(path, text)
