"""Files that an option names for what a verb writes: refused before the work where they cannot be, else by one line."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_metatok.errors import UserError


def check_output(option: str, path: Path | None) -> None:
    """Raise `UserError` where `path` is a folder, or lies in none that exists."""
    if path is not None and (os.path.isdir(path) or not os.path.isdir(path.parent)):
        raise UserError(f"{option}={path}: expected a file in a folder that exists")


@contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Turn what keeps a file from being written into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{option}={path}: cannot be written: {error.strerror}") from error
