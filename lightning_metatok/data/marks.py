"""Where in a text which token stands, so that a reader begins in the middle of it without tokenising what is before.

    <cache>/marks-3f2a....jsonl        [tokens before, documents before, place in the source, a hash] checksum
                                       [0, 2000, [0, 2000], 8817264]
                                       [1048973, 4310, [0, 4310], 1902733]
                                       [52428411, 117204, "end", 0]

A mark stands where a document begins. All follow from the text and the tokenizer: several processes may write the same
ones, and where the file is lost or torn, reading takes longer and gives the same tokens.
"""

import contextlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

EVERY = 1 << 20
"""Tokens between marks, at least: what is tokenised for nothing where a run goes on, a second or so."""
END = "end"


class Mark(NamedTuple):
    """A place in a text: tokens and documents that are before it, and what `sources.documents_from` takes.

    `digest` is that of the document there: a place is what others say it is (`datasets` had versions whose states
    were wrong once a reading had begun at one), and a hub data set may change.
    """

    tokens: int = 0
    documents: int = 0
    place: Any = None
    digest: int = 0


class Marks:
    """The marks of one text, ascending, kept in the file `path`.

    Attributes:
        n_tokens: of the whole text; None as long as nobody has read to its end.
    """

    def __init__(self, path: Path, every: int = EVERY) -> None:
        self.path, self.every = path, every
        self.n_tokens: int | None = None
        self._marks = [Mark()]
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            lines = []
        found = [Mark(*json.loads(line)) for line, _, check in (line.rpartition(" ") for line in lines)
                 if check == _checksum(line)]  # fmt: skip
        for mark in sorted({mark.tokens: mark for mark in found}.values(), key=lambda mark: mark.tokens):
            self._take(mark)

    def before(self, token: int) -> Mark:
        """Return the last mark with no more than `token` tokens before it."""
        return next(mark for mark in reversed(self._marks) if mark.tokens <= token)

    def add(self, mark: Mark) -> None:
        """Keep `mark`, unless one is near before it or beyond it."""
        if mark.place == END:
            new = self.n_tokens is None
        else:
            last = self._marks[-1]
            new = mark.tokens >= last.tokens + self.every or (mark.tokens == 0 and last.place is None)
        if not new:
            return
        self._take(mark)
        line = json.dumps(mark)
        # One write, which others' do not come between. A mark that is not kept costs time alone.
        with contextlib.suppress(OSError), self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line} {_checksum(line)}\n")

    def forget(self) -> None:
        """Drop all marks but the end."""
        n_tokens, self.n_tokens, self._marks = self.n_tokens, None, [Mark()]
        with contextlib.suppress(OSError):
            self.path.unlink()
        if n_tokens is not None:
            self.add(Mark(n_tokens, 0, END))

    def _take(self, mark: Mark) -> None:
        if mark.place == END:
            self.n_tokens = mark.tokens
        elif mark.tokens == 0:
            self._marks[0] = mark
        else:
            self._marks.append(mark)


def _checksum(line: str) -> str:
    return xxhash.xxh3_64_hexdigest(line.encode())
