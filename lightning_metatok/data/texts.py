"""Documents from Python: a list of texts, or anything that yields texts."""

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lightning_metatok.data.local_files import format_of
from lightning_metatok.errors import UserError


class Texts:
    """An iterable of texts as a `Source`; one that can be read once only, such as a generator, is kept in memory."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = list(texts) if isinstance(texts, Iterator) else texts

    def __repr__(self) -> str:
        """Short: it stands in messages and in the name of the corpus."""
        n = f"{len(self._texts):,} " if isinstance(self._texts, Sequence) else ""
        return f"<{n}texts from Python>"

    def documents(self) -> Iterator[str]:
        for place, text in enumerate(self._texts):
            if not isinstance(text, str):
                raise UserError(f"data.corpus: item {place} is {type(text).__name__}; expected text")
            yield text

    def fingerprint(self) -> list[Any]:
        digest = hashlib.blake2b(digest_size=16)
        for text in self.documents():
            encoded = text.encode(errors="surrogatepass")
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        return ["texts", digest.hexdigest()]


def are_texts(entries: Sequence[object]) -> bool:
    """Return whether a list holds texts and not paths: one has a blank in it, and none is there or ends like a file."""
    texts = [entry for entry in entries if isinstance(entry, str)]
    if len(texts) != len(entries) or not any(len(text.split(maxsplit=1)) > 1 for text in texts):
        return False
    return not any(_is_path(text) for text in itertools.islice(texts, 1000))


def _is_path(text: str) -> bool:
    return format_of(text) is not None or text.startswith(("./", "../", "~/")) or os.path.lexists(text)
