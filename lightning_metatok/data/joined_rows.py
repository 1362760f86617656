"""Documents of data sets whose rows are lines: a row that looks like a title starts one.

rows        [ = Lobster = ] [] [It is blue .] [ = Heron = ] [It is grey .]       document_start: "^ = "
documents   [ = Lobster = ⏎⏎It is blue .⏎] [ = Heron = ⏎It is grey .⏎]
"""

import re
from collections.abc import Iterable, Iterator

from lightning_metatok.errors import UserError

LONGEST = 1 << 28
"""Characters: a longer document means that the expression matches nowhere."""


def check_start(pattern: str) -> None:
    """Raise UserError unless `pattern` is a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise UserError(f"data.document_start={pattern!r}: expected a regular expression ({error})") from error


def joined_rows(rows: Iterable[str], pattern: str | None) -> Iterator[str]:
    """Yield `rows` as they are, or, with a pattern, joined to documents, each row a line of its own.

    Raises:
        UserError: the pattern matches in no row of a very long text.
    """
    if pattern is None:
        yield from rows
        return
    starts, lines, size = re.compile(pattern), list[str](), 0
    for row in rows:
        if lines and starts.search(row):
            yield "".join(lines)
            lines, size = [], 0
        lines.append(row if row.endswith("\n") else f"{row}\n")
        size += len(row) + 1
        if size > LONGEST:
            raise UserError(f"data.document_start={pattern!r}: matches in no row of {size:,} characters of text")
    if lines:
        yield "".join(lines)
