"""A source in two: its first documents, which are held out where text is trained on as it is read, and the others.

documents      d0 "" d1 d2 | d3 d4 d5 ...      those without text count nowhere
First(2)       d0 d1
Behind(2)      d2 ...
"""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lightning_metatok.data.sources import HubSplit, Source, documents_from
from lightning_metatok.errors import UserError


@dataclass(frozen=True)
class First:
    """The first `n` documents with text of `source`."""

    source: Source
    n: int

    def documents(self) -> Iterator[str]:
        found = (document for document in self.source.documents() if document and not document.isspace())
        return itertools.islice(found, self.n)

    def fingerprint(self) -> list[Any]:
        """Of the documents, where they lie here: a fingerprint of the source would read all of it."""
        if isinstance(self.source, HubSplit):
            return ["first", self.n, self.source.fingerprint()]
        digest = hashlib.blake2b(digest_size=16)
        for document in self.documents():
            digest.update(hashlib.blake2b(document.encode(errors="surrogatepass")).digest())
        return ["first", self.n, digest.hexdigest()]


@dataclass(frozen=True)
class Behind:
    """The documents with text of `source`, which is called `name`, without the first `n` of them."""

    source: Source
    n: int
    name: str

    def documents(self) -> Iterator[str]:
        return (text for _, text in self.documents_from(None))

    def documents_from(self, place: Any) -> Iterator[tuple[Any, str]]:
        """Yield (place, text) from `place` on, which is one of `source`; None: from behind the first ones.

        Raises:
            UserError: there is none behind them.
        """
        found = (pair for pair in documents_from(self.source, place) if pair[1] and not pair[1].isspace())
        if place is not None:
            yield from found
            return
        empty = True
        for pair in itertools.islice(found, self.n, None):
            empty = False
            yield pair
        if empty:
            raise UserError(
                f"data.corpus={self.name!r}: no document with text in it"
                if not self.n
                else f"data.corpus={self.name!r}: no document with text behind its first {self.n:,}, which are held "
                f"out; expected more text, or a smaller data.held_out_documents"
            )

    def fingerprint(self) -> list[Any]:
        return ["behind", self.n, self.source.fingerprint()]
