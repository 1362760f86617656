"""Documents in pieces, and pieces in batches: what is tokenised at once is bounded, however long a document is."""

import re
from collections.abc import Iterable, Iterator

import xxhash

PIECE = 1 << 16
"""Characters: longer documents are tokenised in pieces, to bound memory: a character takes about 100 bytes while it is
tokenised. Pieces end between words, where byte-level tokenizers cut anyway, so that ids are those of the whole."""
BORDER = re.compile(r"(?<=\w) (?=\w)")
LINE_BORDER = re.compile(r"(?<=\S)\n(?=\S)")

Piece = tuple[str, int | None]
"""A piece of a document and, with the last one, a hash of the whole."""


def hashed_pieces(documents: Iterable[str]) -> Iterator[Piece]:
    """Yield the pieces of `documents`, one document after another."""
    for document in documents:
        digest = xxhash.xxh3_64()
        for start in range(0, len(document), PIECE):
            digest.update(document[start : start + PIECE].encode())
        end = 0
        for piece in pieces(document, PIECE):
            end += len(piece)
            yield piece, digest.intdigest() if end == len(document) else None


def batches(found: Iterable[Piece], size: int) -> Iterator[list[Piece]]:
    """Yield lists of pieces that have about `size` characters."""
    batch: list[Piece] = []
    n = 0
    for piece in found:
        batch.append(piece)
        n += len(piece[0])
        if n >= size:
            yield batch
            batch, n = [], 0
    if batch:
        yield batch


def pieces(document: str, length: int) -> Iterator[str]:
    """Yield `document` in pieces of `length` characters and what follows up to the end of the word.

    A word begins with its blank. Where no blank stands between two words before 2 * `length`, a piece ends at a line
    break between two words, else before the last blank, or there.
    """
    start = 0
    while len(document) - start > 2 * length:
        least, most = start + length, start + 2 * length
        if border := BORDER.search(document, least, most):
            end = border.start()
        elif border := LINE_BORDER.search(document, least, most):
            end = border.end()
        else:
            end = max(document.rfind(" ", least, most), document.rfind("\n", least, most) + 1)
            end = end if end > least else most
        yield document[start:end]
        start = end
    if start < len(document):
        yield document[start:]
