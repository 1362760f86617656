"""A user's mistake: one clear line, exit code 2.

`UserError` is the only exception that the command line turns into a message instead of a traceback. Its text
names the key or file, the value, what was expected and, where one is near, the right name.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What the user gave cannot work. The message is one line, complete on its own."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name closest to `name`, or ``""`` if none is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{matches[0]}'?" if matches else ""


class RunError(Exception):
    """A run cannot go on, though nothing that the user gave was refused. One line, and an exit code of its own."""

    code = 1


class NonFiniteError(RunError):
    """A loss or a gradient is not a finite number."""

    code = 3


class WorkerError(RunError):
    """A process that builds batches died."""

    code = 4
