"""Where tables are printed: a terminal has its width, and nothing else has any.

Rich takes 80 columns where it does not know better, and then cuts cells, folds them or leaves columns out: in a pipe,
in a file and in the log of a batch job. It folds a title that is wider than its table everywhere.
"""

import sys
from typing import Any

from rich.console import Console
from rich.table import Table

NO_LIMIT = 100_000
"""Columns; rich fills up to a table's own width, not to this."""


class _Unlimited(Console):
    """Titles and captions are lines of their own."""

    def print(self, *objects: Any, **options: Any) -> None:
        for shown in objects:
            if not isinstance(shown, Table):
                super().print(shown, **options)
                continue
            title, caption = shown.title, shown.caption
            shown.title = shown.caption = None
            for part, style in ((title, "table.title"), (shown, None), (caption, "table.caption")):
                if part:
                    super().print(part, style=style, highlight=False)
            shown.title, shown.caption = title, caption
        if not objects:
            super().print(**options)


def printer() -> Console:
    """Return what prints to stdout: as wide as the terminal, or as wide as what is printed."""
    return Console() if sys.stdout.isatty() else _Unlimited(width=NO_LIMIT)
