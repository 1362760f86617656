"""From a `DataConfig` to text that is tokenised while it trains: what is held out is prepared, the rest is not.

validation text given     its first documents validate and test          all of the corpus trains
none                      the first documents of the corpus do           it trains from behind them on
a mixture                 so does each of its corpora, and what          both are mixed by the same weights
                          validates is as much of each as trains
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.data.blocks import TokenStore
from lightning_metatok.data.cache import cache_folder, fingerprint
from lightning_metatok.data.corpora import Corpus, Split, open_corpus
from lightning_metatok.data.first_documents import Behind, First
from lightning_metatok.data.marks import Marks
from lightning_metatok.data.mixture import Mixture, Side
from lightning_metatok.data.pieces import PIECE
from lightning_metatok.data.preparation import DataConfig, load_tokenizer, progress_bar, tell
from lightning_metatok.data.sources import Files, Source
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.data.windows import StreamedText
from lightning_metatok.data.writing import prepare_tokens
from lightning_metatok.errors import UserError

HELD_OUT_DOCUMENTS = 2000
"""That are read of the text that validates unless somebody says how many."""


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


def prepare_streamed(
    config: DataConfig,
    held_out_documents: int | None = None,
    say: Callable[[str], None] = print,
    workers: int = 0,
) -> tuple[MetaTokenizer, TokenStore, StreamedText]:
    """Return the tokenizer, prepared tokens to validate and test on, and the text to train on.

    Args:
        held_out_documents: of each corpus that validate, and that test, at most; None: 2,000.
        say: told what people should know about the corpus.
        workers: processes that tokenise; 0: this one does.

    Raises:
        UserError: anything wrong with the corpus, the tokenizer, or the cache folder.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # as in `preparation.prepare`
    assert config.tokenizer is not None, "checked before"
    cache, corpus = cache_folder(config.cache_dir), open_corpus(config)
    tokenizer = load_tokenizer(config.tokenizer, config.add_special_tokens, masked=config.masked)
    most = held_out_documents or HELD_OUT_DOCUMENTS
    check_apart(corpus)
    held_out = HeldOut(
        dataclasses.replace(config, max_documents=None),
        corpus.train,
        first(corpus.validation or corpus.train, most),
        first(corpus.test, most) if corpus.test else None,
        corpus.notes,
    )
    with progress_bar() as progress:
        store = prepare_tokens(held_out, tokenizer, cache, progress)
    tell(held_out, store, say)
    train = behind(corpus, most)
    known = {
        "kind": "marks",
        "text": text_stamp(train),
        "tokenizer": tokenizer.fingerprint(),
        "documents": config.max_documents,
        "longest_piece": 2 * PIECE,
    }
    marks = Marks(cache / f"marks-{fingerprint(known)}.jsonl")
    return tokenizer, store, StreamedText(train, tokenizer, marks, most=config.max_documents, workers=workers)


def first(source: Source, n: int) -> Source:
    """Return the first `n` documents of `source`, or of each source that it mixes."""
    if isinstance(source, Mixture):
        return mixed(source, [first(one, n) for one in source.sources])
    return First(source.corpus.validation or source.corpus.train if isinstance(source, Side) else source, n)


def behind(corpus: Corpus, n: int) -> Source:
    """Return what trains: all, or what is behind the first `n` documents of each corpus that these are held out of."""
    if isinstance(corpus.train, Mixture):
        return mixed(corpus.train, [behind(one, n) for one in corpora_of(corpus).values()])
    return Behind(corpus.train, n if corpus.validation is None else 0, corpus.config.name)


def mixed(mixture: Mixture, sources: Sequence[Source]) -> Mixture:
    """Return `sources` as those of `mixture` are mixed."""
    return Mixture(mixture.names, tuple(sources), mixture.weights, mixture.ends)


def corpora_of(corpus: Corpus) -> dict[str, Corpus]:
    """Return the corpora of a mixture by name; of another corpus none."""
    if not isinstance(corpus.train, Mixture):
        return {}
    named = zip(corpus.train.names, corpus.train.sources, strict=True)
    return {name: side.corpus for name, side in named if isinstance(side, Side)}


def check_apart(corpus: Corpus) -> None:
    """Raise UserError where one corpus of a mixture trains on a file out of which another one holds documents."""
    corpora = corpora_of(corpus)
    held = {
        path: name
        for name, one in corpora.items()
        for source in (one.validation or one.train, one.test)
        for path in paths_of(source)
    }
    for name, one in corpora.items():
        for path in paths_of(one.train):
            if held.get(path, name) != name:
                raise UserError(
                    f"data.corpus: {path} is in {held[path]} and in {name}: with data.shuffle_buffer one would train "
                    f"on what the other holds out; expected it in one of them, or a data.validation_corpus"
                )


def paths_of(source: Source | None) -> list[str]:
    """Return the files of `source`, where it is local."""
    return [os.path.realpath(path) for path in source.paths] if isinstance(source, Files) else []


def text_stamp(source: Source) -> list[Any]:
    """Return what the documents follow from, without reading them where they are in files: size and time of each."""
    if isinstance(source, Mixture):
        return ["mixture", source.ends, list(source.weights), [text_stamp(one) for one in source.sources]]
    if isinstance(source, Behind):
        return ["behind", source.n, text_stamp(source.source)]
    if not isinstance(source, Files):
        return source.fingerprint()
    status = [(os.path.realpath(path), os.stat(path)) for path in source.paths]
    return [
        "files",
        [[name, found.st_size, found.st_mtime_ns] for name, found in status],
        [source.text_field, source.text_documents, source.document_start],
    ]
