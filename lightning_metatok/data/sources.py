"""Sources of documents: local files, Python's own sources, one split of a data set on the Hugging Face hub."""

import hashlib
import itertools
import logging
import os
import sys
import sysconfig
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning_metatok.data.joined_rows import joined_rows
from lightning_metatok.data.json_documents import json_documents, missing_field
from lightning_metatok.data.local_files import check_unpacked_size, format_of
from lightning_metatok.data.parquet_documents import parquet_documents
from lightning_metatok.data.text_documents import TextDocuments, text_documents
from lightning_metatok.errors import OutOfReach, UserError, nearest

PYTHON_STDLIB = "python-stdlib"
NOT_PROSE = {"test", "tests", "idle_test", "site-packages", "dist-packages", "_bundled", "pip", "__pycache__"}
"""Folders of the standard library that are left out: tests, and packages that are not part of it."""


DAMAGE = (ValueError, EOFError, zlib.error)
"""What reading a file raises that is not what it should be, beside Arrow's errors."""
NETWORK = {"httpx", "httpx2", "httpcore", "requests", "urllib3", "aiohttp"}
"""Libraries below `datasets` whose errors, where they are no OSError, mean that the hub stopped answering."""


@runtime_checkable
class Source(Protocol):
    """An ordered collection of documents."""

    def documents(self) -> Iterator[str]:
        """Yield the text of each document, empty ones included."""

    def fingerprint(self) -> list[Any]:
        """Return what the documents follow from, as JSON: equal fingerprints, equal documents."""


@runtime_checkable
class Placed(Source, Protocol):
    """A source that can be read from the middle at less than the cost of all that stands before."""

    def documents_from(self, place: Any) -> Iterator[tuple[Any, str]]:
        """Yield (place, text) of each document from `place` on, which JSON holds; None: from the first one."""


def documents_from(source: Source, place: Any) -> Iterator[tuple[Any, str]]:
    """Yield (place, text) of each document of `source` from `place` on, None from the first one."""
    return source.documents_from(place) if isinstance(source, Placed) else counted(source.documents(), place)


def counted(documents: Iterable[str], place: int | None) -> Iterator[tuple[int, str]]:
    """Yield (documents before, text) from the document `place` on; those before it are read and dropped."""
    return enumerate(itertools.islice(documents, place or 0, None), place or 0)


@dataclass(frozen=True)
class Files:
    """Local files, read in the order given."""

    paths: tuple[Path, ...]
    text_field: str
    text_documents: TextDocuments
    document_start: str | None = None

    def documents(self) -> Iterator[str]:
        return (text for _, text in self.documents_from(None))

    def documents_from(self, place: list[int] | None) -> Iterator[tuple[list[int], str]]:
        """Yield ((number of the file, documents before in it), text); files before `place` are not opened."""
        first, skipped = place or (0, 0)
        for number, path in enumerate(self.paths[first:], first):
            check_unpacked_size(path)
            before = skipped if number == first else 0
            documents = itertools.islice(joined_rows(self._rows(path), self._start(path)), before, None)
            yield from (([number, row], text) for row, text in enumerate(documents, before))

    def _rows(self, path: Path) -> Iterator[str]:
        kind = format_of(path)
        if kind == "json":
            return json_documents(path, self.text_field)
        if kind == "parquet":
            return parquet_documents(path, self.text_field)
        return text_documents(path, self.text_documents)

    def _start(self, path: Path) -> str | None:
        rows = format_of(path) != "text" or self.text_documents == "line"
        return self.document_start if rows else None

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
            *([self.document_start] if self.document_start is not None else []),
        ]


@dataclass(frozen=True)
class PythonSources:
    """Some files of the standard library of the running Python, relative to its folder."""

    names: tuple[str, ...]

    def documents(self) -> Iterator[str]:
        folder = stdlib_folder()
        return Files(tuple(folder / name for name in self.names), "text", "file").documents()

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
    document_start: str | None = None

    def documents(self) -> Iterator[str]:
        return joined_rows(self._texts(self._open()), self.document_start)

    def documents_from(self, place: Any) -> Iterator[tuple[Any, str]]:
        """Yield (place, text); a place is what `datasets` calls a state: files before it are not read."""
        rows = self._open()
        if self.document_start is not None:
            yield from counted(joined_rows(self._texts(rows), self.document_start), place)
        elif self.streaming:
            if place is not None:
                rows.load_state_dict(place)
            for text in self._texts(rows):
                yield place, text
                place = rows.state_dict()
        else:
            yield from enumerate(self._texts(rows.skip(place or 0)), place or 0)

    def _open(self) -> Any:
        import datasets
        import pyarrow

        where = f"data.corpus={self.name!r}"
        datasets.logging.set_verbosity(logging.CRITICAL)  # what goes wrong is said here
        if not sys.stderr.isatty():
            datasets.disable_progress_bars()
        try:
            return datasets.load_dataset(self.name, self.subset, split=self.split, streaming=self.streaming)
        except (pyarrow.ArrowException, datasets.exceptions.DatasetGenerationError) as error:
            raise self._damaged(error.__cause__ or error) from error
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:  # unreachable, unknown
            raise UserError(
                f"{where}: neither a file or folder here nor a data set that can be opened on the hub "
                f"(split {self.split!r}; {_shown(error)}){nearest(self.name, [PYTHON_STDLIB]) or self._elsewhere()}"
            ) from error

    def _texts(self, rows: Iterable[Any]) -> Iterator[str]:
        import pyarrow

        where = f"data.corpus={self.name!r}"
        try:
            for row in rows:
                if not isinstance(row.get(self.text_field), str):
                    raise UserError(f"{where}: {missing_field(self.text_field, row)}")
                yield row[self.text_field]
        except UserError:
            raise
        except Exception as error:
            # Arrow and the hub raise a plain OSError for bytes that are not what they should be.
            if isinstance(error, (pyarrow.ArrowException, *DAMAGE)) or type(error) is OSError:
                raise self._damaged(error) from error
            if not isinstance(error, OSError) and type(error).__module__.partition(".")[0] not in NETWORK:
                raise
            raise OutOfReach(
                f"{where}: reading from the hub failed ({_shown(error)}); "
                "what was tokenised is kept, and the same command goes on from there"
            ) from error

    def _damaged(self, error: BaseException) -> UserError:
        return UserError(
            f"data.corpus={self.name!r}: a file of its split {self.split!r} is damaged or half-downloaded "
            f"({_shown(error)}); remove it from the cache of Hugging Face and start again"
        )

    def _elsewhere(self) -> str:
        """How to have the data set where the hub is not reached."""
        from huggingface_hub import constants, snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        part = f" --include '{self.subset}/*'" if self.subset else ""
        command = f"hf download {self.name} --repo-type dataset{part}"
        try:
            folder = Path(snapshot_download(self.name, repo_type="dataset", local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError, OSError):
            folder = None
        kept = Path(constants.HF_HUB_CACHE) / f"datasets--{self.name.replace('/', '--')}" / "blobs"
        if unfinished := len(list(kept.glob("*.incomplete"))):
            return f"; its download is not finished ({unfinished} files .incomplete in {kept}): `{command}` goes on"
        if folder is not None:
            own = folder / (self.subset or "")
            return f"; its files are in the cache of Hugging Face: give --data.corpus={own if own.is_dir() else folder}"
        return (
            f"; without a network here, run `{command} --local-dir DIR` "
            "elsewhere (`hf auth login` first for a gated one), copy DIR and give --data.corpus=DIR"
        )

    def fingerprint(self) -> list[Any]:
        start = [self.document_start] if self.document_start is not None else []
        return ["hub", self.name, self.subset, self.split, self.text_field, *start]


def _shown(error: BaseException) -> str:
    return " ".join(str(error).split())


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
