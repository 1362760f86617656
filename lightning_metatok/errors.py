"""A user's mistake: one clear line, exit code 2.

`UserError` is the only exception that the command line turns into a message instead of a traceback. Its text
names the key or file, the value, what was expected and, where one is near, the right name.
"""

import argparse
import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


class UserError(Exception):
    """What the user gave cannot work. The message is one line, complete on its own."""


class OutOfReach(UserError):
    """What is needed lies elsewhere and cannot be reached now; later it may be, so that what was made of it is kept."""


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
    """A process that builds batches or tokenises died."""

    code = 4


class OptionParser(argparse.ArgumentParser):
    """An argument parser whose errors are UserErrors, for verbs with few options.

    A description is shown as it is written, and options are spelled out, unless it is asked for something else.
    """

    def __init__(self, **options: Any) -> None:
        """Take the arguments of argparse's."""
        as_written = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
        super().__init__(**{**as_written, **options})

    def error(self, message: str) -> NoReturn:
        """Raise UserError instead of printing a usage text."""
        raise UserError(message.removeprefix("argument "))

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Return what `argv` says; options may stand between positional arguments.

        Raises:
            UserError: an argument that is unknown, missing or of another type.
        """
        arguments, unknown = self.parse_known_intermixed_args(list(argv))
        if unknown:
            options = [option for action in self._actions for option in action.option_strings]
            raise UserError(f"unknown option '{unknown[0]}'{nearest(unknown[0], options)}")
        return arguments
