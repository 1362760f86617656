"""Text as tokens while it is read: windows of its stream, one after another, from any of them on.

    documents   d0 d1 d2 d3 d4 ...                                read in the order of the source
    stream      the tokens of `blocks.TokenStore`, of which nothing is kept
    window w    stream[w * size : (w + 1) * size], the last one is shorter

A reading that begins at window w begins at the mark before it, see `marks`, and drops what is between.
"""

import contextlib
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from lightning_metatok.data.marks import END, Mark, Marks
from lightning_metatok.data.pieces import Piece, hashed_pieces
from lightning_metatok.data.sources import Source, documents_from
from lightning_metatok.data.splits import Split
from lightning_metatok.data.tokenising import Encode, Encoded, encoding
from lightning_metatok.data.tokenizer import MetaTokenizer

CHARACTERS = 4
"""A token has about as many: how much text is on its way while a window is trained on."""


@dataclass(frozen=True)
class Window:
    """A stretch of the stream in memory.

    Attributes:
        ids: its tokens, uint16 or uint32.
        starts: where documents start, ascending; 0 may be left out, and the end be there.
    """

    ids: NDArray[np.unsignedinteger]
    starts: NDArray[np.int64]

    def stream(self, split: Split) -> NDArray[np.unsignedinteger]:
        """Return the tokens."""
        return self.ids

    def document_starts(self, split: Split) -> NDArray[np.int64]:
        """Return the starts."""
        return self.starts

    def n_tokens(self, split: Split) -> int:
        """Return how many there are."""
        return len(self.ids)


def digest_of(document: str) -> int:
    """Return 64 bits that stand for it."""
    return xxhash.xxh3_64_intdigest(document.encode(errors="surrogatepass"))


def warn(line: str) -> None:
    """Say what people should know."""
    print(f"lightning-metatok: warning: {line}", file=sys.stderr)


class StreamedText:
    """The documents of a source as windows of tokens.

    Args:
        source: what is read.
        marks: where what stands in it.
        most: documents with text that are read, at most; None: all.
        workers: processes that tokenise; 0: this one does, when the next window is asked for.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: MetaTokenizer,
        marks: Marks,
        *,
        most: int | None = None,
        workers: int = 0,
    ) -> None:
        self.source, self.tokenizer, self.marks = source, tokenizer, marks
        self.most, self.workers = most, workers
        self._open = contextlib.ExitStack()
        self._encode: Encode | None = None

    def windows(self, size: int, first: int = 0) -> Iterator[Window]:
        """Yield window `first`, the one behind it, and so on to the end of the text; the last may be shorter.

        Raises:
            UserError: what reading and tokenising raise.
            WorkerError: a process that tokenises died.
        """
        mark = self._checked(self.marks.before(first * size))
        unwanted = first * size - mark.tokens
        ids, starts, filled = self._empty(size), list[NDArray[np.int64]](), 0
        for encoded in self._encoded(mark, size):
            new = np.frombuffer(encoded.ids, dtype=ids.dtype)
            ends = np.array(encoded.ends, dtype=np.int64)
            dropped = min(unwanted, len(new))
            unwanted -= dropped
            at = dropped
            while at < len(new):
                taken = min(len(new) - at, size - filled)
                ids[filled : filled + taken] = new[at : at + taken]
                # Where a document ends, the next one starts, be it in the next batch.
                starts.append(ends[(ends > at) & (ends <= at + taken)] - at + filled)
                at, filled = at + taken, filled + taken
                if filled == size:
                    yield Window(ids, np.concatenate(starts))
                    ids, starts, filled = self._empty(size), [], 0
        if filled:
            yield Window(ids[:filled], np.concatenate(starts))

    def close(self) -> None:
        """End the processes that tokenise; the next reading begins others."""
        self._encode = None
        self._open.close()

    def _empty(self, size: int) -> NDArray[Any]:
        return np.empty(size, dtype=self.tokenizer.dtype)

    def _checked(self, mark: Mark) -> Mark:
        """Return `mark` if what is there is what it was, else the start of the text, and say so."""
        if mark.place is None:
            return mark
        found = next(((place, digest_of(text)) for place, text in documents_from(self.source, mark.place)), None)
        if found == (mark.place, mark.digest):  # the place of a mixture says what all of its sources have there
            return mark
        self.marks.forget()
        warn(f"document {mark.documents:,} of the text is not where it was; all before it is read again")
        return Mark()

    def _encoded(self, mark: Mark, size: int) -> Iterator[Encoded]:
        """Yield the text from `mark` on, a batch at a time, and leave marks on the way."""
        begun: deque[tuple[int, Mark]] = deque()
        n_pieces, n_tokens = 0, mark.tokens
        for encoded in self._encoder(size)(self._pieces(mark, begun)):
            while begun and begun[0][0] < n_pieces:
                begun.popleft()
            if begun and begun[0][0] == n_pieces:  # else a long document goes on
                self.marks.add(begun[0][1]._replace(tokens=n_tokens))
            n_pieces += encoded.n_pieces
            n_tokens += encoded.n_tokens
            yield encoded
        self.marks.add(Mark(n_tokens, 0, END))

    def _pieces(self, mark: Mark, begun: deque[tuple[int, Mark]]) -> Iterator[Piece]:
        """Yield pieces, and append to `begun` of each document the pieces before it and its mark, without tokens."""
        number, n_pieces = mark.documents, 0
        for place, document in documents_from(self.source, mark.place):
            if not document or document.isspace():
                continue
            if self.most is not None and number >= self.most:
                return
            begun.append((n_pieces, Mark(0, number, place, digest_of(document))))
            for piece in hashed_pieces([document]):
                n_pieces += 1
                yield piece
            number += 1

    def _encoder(self, size: int) -> Encode:
        if self._encode is None:
            ahead = CHARACTERS * size if self.workers else 0
            context = encoding(self.tokenizer, self.tokenizer.dtype, max(1, self.workers), ahead)
            self._encode = self._open.enter_context(context)
        return self._encode
