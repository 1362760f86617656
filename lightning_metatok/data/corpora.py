"""Documents, through Hugging Face `datasets`: local files, a hub data set, or Python's own sources.

    data.corpus                        train                           validation
    python-stdlib                      95 % of the files               5 % of the files
    notes.txt (one document)           its first 95 %                  its last 5 %, from a line (a word) on
    docs/, docs/*.jsonl.gz             95 % of the documents           5 % of the documents
    train.jsonl + validation_corpus    train.jsonl                     validation_corpus
    allenai/c4 + corpus_subset en      its split train                 its split validation

Which document validates follows from a hash of its text (of its path, for python-stdlib), so equal documents
stay on one side and adding a document moves no other. All sources are streamed: nothing is written to disk
here.
"""

import glob
import hashlib
import itertools
import json
import logging
import os
import sys
import sysconfig
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from lightning_metatok.data.diagnosis import blame
from lightning_metatok.data.json_documents import json_documents, missing_field
from lightning_metatok.data.local_files import FORMATS, check_unpacked_size, find_files, format_of
from lightning_metatok.errors import UserError, nearest

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = get_args(Split)
TextDocuments = Literal["file", "paragraph", "line"]

PYTHON_STDLIB = "python-stdlib"
NOT_PROSE = {"test", "tests", "idle_test", "site-packages", "dist-packages", "_bundled", "pip", "__pycache__"}
"""Folders of the standard library that are left out: tests, and packages that are not part of it."""
ROWS = 1024
"""Rows of a Parquet file read at once; `datasets` takes a whole row group, and fails on an empty one."""


@dataclass(frozen=True)
class CorpusConfig:
    """Where the text comes from."""

    corpus: str = PYTHON_STDLIB
    """python-stdlib; or a .txt, .jsonl, .json or .parquet file (text ones also gzipped), a folder or a glob
    of such files; or the name of a data set on the Hugging Face hub"""
    corpus_subset: str | None = None
    """configuration of a hub data set, such as 'en' of allenai/c4"""
    validation_corpus: str | None = None
    """where the validation text comes from: a path, or, for a hub data set, the name of a split (default:
    validation)"""
    text_field: str = "text"
    """field that holds the text of a document, in JSON, Parquet and hub data sets"""
    text_documents: TextDocuments = "file"
    """what a document of a .txt file is: the whole file, a paragraph (up to an empty line), or a line"""
    validation_fraction: float = 0.05
    """share of the documents that validate, for local corpora without validation_corpus"""
    streaming: bool = True
    """read a hub data set over the network as it goes, instead of downloading all of it first"""
    max_documents: int | None = None
    """read at most this many documents of each split"""

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise UserError(f"data.validation_fraction={self.validation_fraction}: expected a share between 0 and 1")
        if self.max_documents is not None and self.max_documents < 1:
            raise UserError(f"data.max_documents={self.max_documents}: expected 1 or more")
        known = get_args(TextDocuments)
        if self.text_documents not in known:
            raise UserError(
                f"data.text_documents={self.text_documents!r}: expected one of {', '.join(known)}"
                f"{nearest(self.text_documents, known)}"
            )


class Source(Protocol):
    """An ordered collection of documents."""

    def documents(self) -> Iterator[str]:
        """Yield the text of each document, empty ones included."""

    def fingerprint(self) -> list[Any]:
        """Return what the documents follow from, as JSON: equal fingerprints, equal documents."""


@dataclass(frozen=True)
class Files:
    """Local files, read in the order given; `option` is the option that named them."""

    paths: tuple[Path, ...]
    option: str
    text_field: str
    text_documents: TextDocuments

    def documents(self) -> Iterator[str]:
        for kind, group in itertools.groupby(self.paths, key=format_of):
            paths = list(group)
            for path in paths:
                check_unpacked_size(path)
            if kind == "json":
                for path in paths:
                    yield from json_documents(path, self.text_field)
            else:
                yield from self._from_datasets(str(kind), paths)

    def _from_datasets(self, kind: str, paths: list[Path]) -> Iterator[str]:
        import datasets

        # What it logs about a bad file, `blame` says with the line.
        logging.getLogger("datasets").setLevel(logging.CRITICAL)
        sample_by = "document" if self.text_documents == "file" else self.text_documents
        options: dict[str, Any] = {"sample_by": sample_by} if kind == "text" else {"batch_size": ROWS}
        files = [glob.escape(str(path)) for path in paths]
        field = "text" if kind == "text" else self.text_field
        try:
            for row in datasets.load_dataset(kind, data_files=files, split="train", streaming=True, **options):
                if not isinstance(row.get(field), str):
                    raise TypeError(f"field {field!r} of a document holds {type(row.get(field)).__name__}")
                yield row[field]
        except StopIteration:  # how `datasets` says that the files are empty
            return
        except (ValueError, TypeError, OSError, EOFError, RuntimeError, zlib.error) as error:
            blame(paths, field)
            named = f"{paths[0]}" if len(paths) == 1 else f"{self.option}: one of {paths[0]} to {paths[-1]}"
            raise UserError(f"{named}: cannot be read by `datasets` ({' '.join(str(error).split())})") from error

    def fingerprint(self) -> list[Any]:
        contents = []
        for path in self.paths:
            try:
                with open(path, "rb") as file:
                    contents.append(hashlib.file_digest(file, "blake2b").hexdigest()[:32])
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror}); expected a file with text") from error
        return [
            "files",
            contents,
            [format_of(path) for path in self.paths],
            self.text_field,
            self.text_documents,
        ]


@dataclass(frozen=True)
class PythonSources:
    """Some files of the standard library of the running Python, relative to its folder."""

    names: tuple[str, ...]

    def documents(self) -> Iterator[str]:
        folder = stdlib_folder()
        files = tuple(folder / name for name in self.names)
        return Files(files, f"data.corpus={PYTHON_STDLIB}", "text", "file").documents()

    def fingerprint(self) -> list[Any]:
        folder = stdlib_folder()
        return ["python", sys.version, [[name, (folder / name).stat().st_size] for name in self.names]]


@dataclass(frozen=True)
class HubSplit:
    """One split of a data set on the Hugging Face hub."""

    name: str
    subset: str | None
    split: str
    text_field: str
    streaming: bool

    def documents(self) -> Iterator[str]:
        import datasets

        where = f"data.corpus={self.name!r}"
        try:
            rows = datasets.load_dataset(self.name, self.subset, split=self.split, streaming=self.streaming)
        except (OSError, ValueError) as error:  # unreachable, unknown; unknown subset or split
            reason = " ".join(str(error).split())
            raise UserError(
                f"{where}: neither a file or folder here nor a data set that can be opened on the hub "
                f"(split {self.split!r}; {reason}){nearest(self.name, [PYTHON_STDLIB])}"
            ) from error
        try:
            for row in rows:
                if not isinstance(row.get(self.text_field), str):
                    raise UserError(f"{where}: {missing_field(self.text_field, row)}")
                yield row[self.text_field]
        except OSError as error:
            raise UserError(f"{where}: reading from the hub failed ({' '.join(str(error).split())})") from error

    def fingerprint(self) -> list[Any]:
        return ["hub", self.name, self.subset, self.split, self.text_field]


@dataclass(frozen=True)
class Corpus:
    """The documents of the splits `train` and `validation`; made by `open_corpus`.

    Without `validation`, a share of the documents of `train` validates instead.
    """

    config: CorpusConfig
    train: Source
    validation: Source | None

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
            raise UserError(self._why_empty(split))

    def fingerprint(self) -> str:
        """Return 32 hex digits that change whenever a document might: contents, versions, names, limits."""
        parts = [
            self.train.fingerprint(),
            self.validation.fingerprint() if self.validation else self.config.validation_fraction,
            self.config.max_documents,
        ]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    def _documents(self, split: Split) -> Iterator[str]:
        if self.validation is not None:
            yield from filter(str.strip, (self.train if split == "train" else self.validation).documents())
            return
        documents = filter(str.strip, self.train.documents())
        first, second = next(documents, None), next(documents, None)
        if first is not None and second is None:
            yield from self._part_of(first, split)
            return
        for document in itertools.chain((d for d in (first, second) if d is not None), documents):
            if is_validation(document, self.config.validation_fraction) == (split == "validation"):
                yield document

    def _part_of(self, document: str, split: Split) -> Iterator[str]:
        """Yield the part of a corpus of one document that belongs to `split`: cut at a line, a blank, or anywhere."""
        start, end = int(len(document) * (1 - self.config.validation_fraction)), len(document.rstrip())
        cut = next((found + 1 for found in (document.find(c, start, end) for c in "\n ") if found >= 0), start)
        part = document[:cut] if split == "train" else document[cut:]
        if part.strip():
            yield part

    def _why_empty(self, split: Split) -> str:
        config = self.config
        if split == "validation" and self.validation is not None and isinstance(self.validation, Files):
            return f"data.validation_corpus={config.validation_corpus!r}: no document with text in it"
        if self.validation is None and any(document.strip() for document in self.train.documents()):
            return (
                f"data.corpus={config.corpus!r}: too small to set {config.validation_fraction:.0%} aside "
                f"for validation; give data.validation_corpus or a larger data.validation_fraction"
            )
        return f"data.corpus={config.corpus!r}: no document with text in it"


def open_corpus(config: CorpusConfig) -> Corpus:
    """Return the corpus that `config` names. Text is read later, by `Corpus.documents`.

    Raises:
        UserError: no such file, folder or corpus.
    """
    train: Source
    validation: Source | None = None
    if config.corpus == PYTHON_STDLIB:
        names = stdlib_names()
        kept = [is_validation(name, config.validation_fraction) for name in names]
        train = PythonSources(tuple(name for name, other in zip(names, kept, strict=True) if not other))
        validation = PythonSources(tuple(name for name, own in zip(names, kept, strict=True) if own))
    elif looks_local(config.corpus):
        train = local_files(config.corpus, "data.corpus", config)
    else:

        def hub_split(split: str) -> HubSplit:
            return HubSplit(config.corpus, config.corpus_subset, split, config.text_field, config.streaming)

        return Corpus(config, hub_split("train"), hub_split(config.validation_corpus or "validation"))
    if config.validation_corpus is not None:
        validation = local_files(config.validation_corpus, "data.validation_corpus", config)
    return Corpus(config, train, validation)


def is_validation(key: str, fraction: float) -> bool:
    """Return whether the hash of `key` falls into the share `fraction` of all hashes."""
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def stdlib_folder() -> Path:
    """Return the folder of the running Python's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def stdlib_names() -> list[str]:
    """Return the .py files of the standard library, sorted, without tests and foreign packages."""
    folder = stdlib_folder()
    names = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in NOT_PROSE]
        names += [Path(parent, name).relative_to(folder).as_posix() for name in files if name.endswith(".py")]
    return sorted(names)


def looks_local(name: str) -> bool:
    """Return whether `name` is meant as a path: it exists, is a glob, or starts or ends like a path."""
    return (
        os.path.lexists(Path(name).expanduser())
        or glob.has_magic(name)
        or name.endswith(tuple(FORMATS))
        or name.startswith(("/", "./", "../", "~"))
    )


def local_files(name: str, option: str, config: CorpusConfig) -> Files:
    """Return the files that `name` stands for. Raises as `find_files` does."""
    return Files(find_files(name, option), option, config.text_field, config.text_documents)
