"""Write files so that nobody ever reads half of one; and where prepared data lie."""

import os
from pathlib import Path

CACHE_VARIABLE = "LIGHTNING_METATOK_CACHE"


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that a reader sees the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def cache_folder(cache_dir: str | None = None) -> Path:
    """Return `cache_dir`, else $LIGHTNING_METATOK_CACHE, else lightning-metatok in the XDG cache folder."""
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lightning-metatok"
