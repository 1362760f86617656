"""From a `DataConfig` to text that is tokenised while it trains: what is held out is prepared, the rest is not.

validation text given     its first documents validate and test          all of the corpus trains
none                      the first documents of the corpus do           it trains from behind them on
"""

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.data.blocks import TokenStore
from lightning_metatok.data.cache import cache_folder, fingerprint
from lightning_metatok.data.corpora import Corpus, Split, open_corpus
from lightning_metatok.data.marks import Marks
from lightning_metatok.data.pieces import PIECE
from lightning_metatok.data.preparation import DataConfig, load_tokenizer, progress_bar, tell
from lightning_metatok.data.sources import Files, HubSplit, Source
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.data.windows import StreamedText
from lightning_metatok.data.writing import prepare_tokens
from lightning_metatok.errors import UserError

HELD_OUT_DOCUMENTS = 2000
"""That are read of the text that validates unless somebody says how many."""


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


class HeldOut(Corpus):
    """What of a corpus validates and tests."""

    @property
    def splits(self) -> tuple[Split, ...]:
        """Without `train`."""
        return super().splits[1:]

    def fingerprint(self) -> str:
        """Return what those two follow from."""
        assert self.validation is not None, "something validates"
        test = self.test.fingerprint() if self.test else self.config.test_fraction
        parts = ["held out", self.validation.fingerprint(), test, self.config.max_documents]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    def remarks(
        self, n_bytes: Mapping[Split, int], digests: Mapping[Split, NDArray[np.uint64]]
    ) -> tuple[list[str], list[str]]:
        """Nothing is known of the text that trains."""
        return [], []


def check_streamed(
    config: DataConfig, shuffle_buffer: int | None, held_out_documents: int | None, *, contiguous: bool = False
) -> None:
    """Raise UserError for options that do not go with text that is tokenised as it is read, if it is."""
    if shuffle_buffer is None:
        if held_out_documents is not None:
            raise UserError(f"data.held_out_documents={held_out_documents}: goes with data.shuffle_buffer alone")
        return
    option = f"data.shuffle_buffer={shuffle_buffer}"
    if contiguous:
        raise UserError(f"{option}: expected null with data.contiguous=true, where each row reads a stretch of its own")
    if shuffle_buffer < 1:
        raise UserError(f"{option}: expected 1 block or more, or null to tokenise all text ahead")
    if held_out_documents is not None and held_out_documents < 1:
        raise UserError(f"data.held_out_documents={held_out_documents}: expected 1 or more")
    if config.tokenizer is None:
        raise UserError(
            f"{option}: expected a data.tokenizer, such as gpt2 or a tokenizer.json; training one would read all text"
        )
    if isinstance(config.corpus, Mapping):
        raise UserError(f"{option}: data.corpus is a mixture; expected one corpus, or shuffle_buffer null")


def prepare_streamed(
    config: DataConfig,
    held_out_documents: int | None = None,
    say: Callable[[str], None] = print,
    workers: int = 0,
) -> tuple[MetaTokenizer, TokenStore, StreamedText]:
    """Return the tokenizer, prepared tokens to validate and test on, and the text to train on.

    Args:
        held_out_documents: that validate, and that test, at most; None: 2,000.
        say: told what people should know about the corpus.
        workers: processes that tokenise; 0: this one does.

    Raises:
        UserError: anything wrong with the corpus, the tokenizer, or the cache folder.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # as in `preparation.prepare`
    assert config.tokenizer is not None, "checked before"
    cache, corpus = cache_folder(config.cache_dir), open_corpus(config)
    tokenizer = load_tokenizer(config.tokenizer, config.add_special_tokens, masked=config.masked)
    own, most = corpus.validation is None, held_out_documents or HELD_OUT_DOCUMENTS
    held_out = HeldOut(
        dataclasses.replace(config, max_documents=None),
        corpus.train,
        First(corpus.validation or corpus.train, most),
        First(corpus.test, most) if corpus.test else None,
        corpus.notes,
    )
    with progress_bar() as progress:
        store = prepare_tokens(held_out, tokenizer, cache, progress)
    tell(held_out, store, say)
    skipped = most if own else 0
    known = {
        "kind": "marks",
        "text": text_stamp(corpus.train),
        "tokenizer": tokenizer.fingerprint(),
        "documents": [skipped, config.max_documents],
        "longest_piece": 2 * PIECE,
    }
    marks = Marks(cache / f"marks-{fingerprint(known)}.jsonl")
    text = StreamedText(
        corpus.train, tokenizer, marks, skipped=skipped, most=config.max_documents, workers=workers
    )  # fmt: skip
    return tokenizer, store, text


def text_stamp(source: Source) -> list[Any]:
    """Return what the documents follow from, without reading them where they are in files: size and time of each."""
    if not isinstance(source, Files):
        return source.fingerprint()
    status = [(os.path.realpath(path), os.stat(path)) for path in source.paths]
    return [
        "files",
        [[name, found.st_size, found.st_mtime_ns] for name, found in status],
        [source.text_field, source.text_documents, source.document_start],
    ]
