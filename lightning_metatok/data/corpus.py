"""A corpus: what is trained, validated and tested on, each document on one side, streamed."""

import functools
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.data.joined_rows import check_start
from lightning_metatok.data.mixture import Ends, Mixture, Side, check_ends, parts_of
from lightning_metatok.data.sources import PYTHON_STDLIB, Files, HubSplit, PythonSources, Source
from lightning_metatok.data.splits import SPLITS, TESTS, Division, Split, divide, near
from lightning_metatok.data.text_documents import TextDocuments
from lightning_metatok.data.texts import Texts, are_texts
from lightning_metatok.errors import UserError, nearest

AT_ONCE = 1 << 22
"""Hashes of documents that are compared at once."""


@dataclass(frozen=True)
class CorpusConfig:
    """Where the text comes from."""

    corpus: dict[str, Any] | list[str] | str = PYTHON_STDLIB
    """python-stdlib; or a .txt, .md, .jsonl, .ndjson, .json or .parquet file (all but the last also as .gz or .zst),
    a folder or a glob of such files, or a list of these; or the name of a data set on the Hugging Face hub; or the
    dotted path of a class with the methods of `lightning_metatok.data.sources.Source`, built without arguments; or a
    mixture of all these, {corpus: weight} or {corpus: {weight: 3, text_field: body}}, in shares of UTF-8 bytes. From
    Python also a list of texts, an iterable of texts, or a Source"""
    mixture_ends: Ends = "first"
    """when a pass over a mixture ends: with the corpus that ends first, so that no text is read twice, or when all
    have ended once, for which the others are read again"""
    corpus_subset: str | None = None
    """configuration of a hub data set, such as 'en' of allenai/c4"""
    validation_corpus: list[str] | str | None = None
    """where the validation text comes from: a path or a list of paths, or, for a hub data set, the name of a split
    (default: validation; held_out: a share of train, where there is no other)"""
    test_corpus: list[str] | str | None = None
    """where the text of `test` comes from: a path or a list of paths, or, for a hub data set, the name of a split
    (default: files named test, else a share of what is held out of training)"""
    text_field: str = "text"
    """field that holds the text of a document, in JSON, Parquet and hub data sets"""
    document_start: str | None = None
    """a regular expression: a row, or a line with data.text_documents=line, in which it matches starts a document, and
    the following ones belong to it; for data sets whose rows are lines, such as WikiText"""
    text_documents: TextDocuments = "file"
    """what a document of a .txt file is: the whole file, a paragraph (up to an empty line), or a line"""
    validation_fraction: float = 0.05
    """share of the text that is held out of training, for local corpora whose files are not named train and
    validation"""
    test_fraction: float = 0.5
    """share of what is held out of training that tests, where nothing else does; the rest validates. 0: test reads
    the validation text"""
    streaming: bool = True
    """read a hub data set over the network as it goes, instead of downloading all of it first"""
    max_documents: int | None = None
    """read at most this many documents of each split"""

    @property
    def name(self) -> str:
        """The corpus in a few words."""
        if isinstance(self.corpus, Mapping):
            parts = parts_of(self.corpus)
            return " + ".join(f"{part.weight:g} {name}" for name, part in parts.items())
        return ", ".join(self.corpus) if isinstance(self.corpus, list) else str(self.corpus)

    def __post_init__(self) -> None:
        corpus: Any = self.corpus
        if not isinstance(corpus, str | Mapping | Source):
            if not isinstance(corpus, Iterable):
                raise UserError(f"data.corpus={corpus!r}: expected a path, a name, texts or a mapping of weights")
            if not isinstance(corpus, list) or are_texts(corpus):
                object.__setattr__(self, "corpus", Texts(corpus))
        check_ends(self.mixture_ends)
        if not 0 < self.validation_fraction < 1:
            raise UserError(f"data.validation_fraction={self.validation_fraction}: expected a share between 0 and 1")
        if not 0 <= self.test_fraction < 1:
            raise UserError(f"data.test_fraction={self.test_fraction}: expected a share from 0 to less than 1")
        if self.max_documents is not None and self.max_documents < 1:
            raise UserError(f"data.max_documents={self.max_documents}: expected 1 or more")
        if self.document_start is not None:
            check_start(self.document_start)
        known = get_args(TextDocuments)
        if self.text_documents not in known:
            raise UserError(
                f"data.text_documents={self.text_documents!r}: expected one of {', '.join(known)}"
                f"{nearest(self.text_documents, known)}"
            )


@dataclass(frozen=True)
class Corpus:
    """The documents of the splits `train`, `validation` and `test`; made by `open_corpus`.

    Without `validation`, a share of the text of `train` is held out of it instead. Without `test`, a share of what is
    held out tests. `notes` are lines that people should read.
    """

    config: CorpusConfig
    train: Source
    validation: Source | None
    test: Source | None = None
    notes: tuple[str, ...] = ()

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those that there are: all, or no text to test on, because nobody wants any or too little is held out."""
        tests = self.test is not None or (self.config.test_fraction > 0 and any(self._documents("test")))
        return SPLITS if tests else ("train", "validation")

    def documents(self, split: Split) -> Iterator[str]:
        """Yield the texts of `split` that are not empty, always in the same order.

        Raises:
            UserError: the text cannot be read, or there is none.
        """
        count = 0
        for document in itertools.islice(self._documents(split), self.config.max_documents):
            count += 1
            yield document
        if count == 0:
            raise UserError(self.why_empty(split))

    def fingerprint(self) -> str:
        """Return 32 hex digits that change whenever a document might: contents, versions, names, limits."""
        parts = [
            self.train.fingerprint(),
            self.validation.fingerprint() if self.validation else self.config.validation_fraction,
            self.test.fingerprint() if self.test else self.config.test_fraction,
            self.config.max_documents,
        ]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    @functools.cached_property
    def division(self) -> Division:
        """How the documents of `train` are divided where nothing else is held out; the first use reads them all."""
        if isinstance(self.train, HubSplit):  # whole documents, without reading a large data set for it
            return Division(self.config.validation_fraction, self.config.validation_fraction)
        return divide(_with_text(self.train), self.config.validation_fraction, self.config.max_documents)

    @functools.cached_property
    def held_out_division(self) -> Division:
        """How what is held out is divided where nothing else tests; the first use reads all of it."""
        if isinstance(self.train, HubSplit) and self.validation is None:
            return Division(self.config.test_fraction, self.config.test_fraction, by=TESTS)
        return divide(self.held_out(), self.config.test_fraction, self.config.max_documents, TESTS)

    def remarks(
        self, n_bytes: Mapping[Split, int], digests: Mapping[Split, NDArray[np.uint64]]
    ) -> tuple[list[str], list[str]]:
        """Return lines about how the text was split, and warnings.

        Args:
            n_bytes: UTF-8 bytes of each split.
            digests: a hash of each document of each split.
        """
        notes, warnings = self.train.remarks() if isinstance(self.train, Mixture) else ([], [])
        if self.validation is None:
            held = n_bytes["validation"] + (n_bytes.get("test", 0) if self.test is None else 0)
            asked, share = self.config.validation_fraction, held / (held + n_bytes["train"])
            if self.division.cut_above is not None:
                size, whole = int(self.division.cut_above), self.division.whole_share
                notes.append(
                    f"data.validation_fraction={asked}: documents of more than {size:,} characters are cut in two, "
                    f"as whole ones would give {whole:.1%}"
                )
            if self.config.max_documents is None and not near(share, asked):
                warnings.append(f"data.validation_fraction={asked}: {share:.1%} of the text is held out of training")
        named: tuple[tuple[Split, Source | None, str], ...] = (
            ("validation", self.validation, "validate"), ("test", self.test or self.validation, "test"),
        )  # fmt: skip
        for split, source, what in named:
            shared = _among(digests[split], digests["train"]) if source and split in digests else 0
            if shared and not isinstance(self.train, PythonSources):
                warnings.append(
                    f"{shared} of {len(digests[split])} documents to {what} on are in the training text, too: "
                    f"their loss says nothing about new text"
                )
        return notes, warnings

    def everything(self) -> Iterator[str]:
        """Yield all text of all splits, in no order; nothing where reading it costs more than local files do."""
        sources = [source for source in (self.train, self.validation, self.test) if source is not None]
        if not all(map(_is_here, sources)):
            return
        if self.config.max_documents is None:
            yield from itertools.chain.from_iterable(map(_with_text, sources))
        else:
            yield from itertools.chain.from_iterable(map(self.documents, self.splits))

    def _documents(self, split: Split) -> Iterator[str]:
        if split == "test" and self.test is not None:
            yield from _with_text(self.test)
        elif split != "train":
            if self.test is not None or self.config.test_fraction == 0:
                yield from self.held_out()
            else:
                for document in self.held_out():
                    yield from self.held_out_division.parts(document, split == "test")
        elif self.validation is not None:
            yield from _with_text(self.train)
        else:
            for document in _with_text(self.train):
                yield from self.division.parts(document, False)

    def held_out(self) -> Iterator[str]:
        """What does not train: to validate and, where nothing else does, to test."""
        if self.validation is not None:
            yield from _with_text(self.validation)
            return
        for document in _with_text(self.train):
            yield from self.division.parts(document, True)

    def why_empty(self, split: Split) -> str:
        """Return what to say of a split without a document."""
        config = self.config
        named = {
            "validation": (self.validation, config.validation_corpus),
            "test": (self.test, config.test_corpus),
        }.get(split, (None, None))
        if isinstance(named[0], Files) and not any(_with_text(named[0])):
            if named[1] is None:
                return f"data.corpus={config.corpus!r}: no document with text in its files named {split}"
            return f"data.{split}_corpus={named[1]!r}: no document with text in it"
        if self.validation is None and any(_with_text(self.train)):
            return (
                f"data.corpus={config.corpus!r}: too small to set {config.validation_fraction:.0%} aside "
                f"for validation; give data.validation_corpus or a larger data.validation_fraction"
            )
        return f"data.corpus={config.corpus!r}: no document with text in it"


def _is_here(source: Source) -> bool:
    """Whether the text of `source` lies on this machine."""
    if isinstance(source, Mixture):
        return all(map(_is_here, source.sources))
    if isinstance(source, Side):
        return all(_is_here(side) for side in (source.corpus.train, source.corpus.validation) if side is not None)
    return isinstance(source, Files | PythonSources | Texts)


def _among(values: NDArray[np.uint64], others: NDArray[np.uint64]) -> int:
    """Return how many of `values` are among `others`, which may be too many to sort at once."""
    found = np.zeros(len(values), dtype=np.bool_)
    for start in range(0, len(others), AT_ONCE):
        found |= np.isin(values, others[start : start + AT_ONCE])
    return int(found.sum())


def _with_text(source: Source) -> Iterator[str]:
    # `strip` would copy a large document.
    return (document for document in source.documents() if document and not document.isspace())
