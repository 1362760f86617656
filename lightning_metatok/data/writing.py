"""Documents to streams of tokens on disk, so that a kill costs seconds: what was written is gone on from.

    <cache>/tokens-3f2a....partial/
        train.bin            ids, appended
        train.ends           where in it each document ends, appended; becomes train.starts.npy
        train.digests        a hash of each document, appended; duplicates are looked for in it
        train.written.json   how much of the three is on the disk, with checksums: replaced whole every few seconds

Neither kills nor the number of processes change a bit of what is written. Nothing here grows with the text but files.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from lightning_metatok.data.blocks import INFO, TokenStore
from lightning_metatok.data.cache import CHUNK, fingerprint, prepared
from lightning_metatok.data.corpora import Corpus, Split
from lightning_metatok.data.pieces import PIECE, hashed_pieces
from lightning_metatok.data.tokenising import Encode, Encoded, encoding
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.files import write_atomically

COMMIT = 1 << 24
"""Characters behind which what was written is made sure to be on the disk."""
FILES = ("bin", "ends", "digests")

Progress = Callable[[str, int, float | None], None]
"""Told (what is done, tokens written of the split, share of all text that is done, where that is known)."""


@dataclass
class Written:
    """How far a split is, and the size and checksum of each of its files."""

    n_pieces: int = 0
    n_tokens: int = 0
    n_bytes: int = 0
    n_characters: int = 0
    complete: bool = False
    files: dict[str, list[Any]] = field(default_factory=dict)


def prepare_tokens(
    corpus: Corpus,
    tokenizer: MetaTokenizer,
    cache: Path,
    progress: Progress | None = None,
    workers: int = 1,
) -> TokenStore:
    """Return the token streams of `corpus`, from the folder `cache` where they were prepared before.

    Args:
        progress: called after every batch.
        workers: processes that tokenise; their number changes nothing that is written.

    Raises:
        UserError: what reading the corpus raises, or a cache folder that is full or cannot be written.
        WorkerError: a process that tokenises died.
    """
    inputs = {
        "kind": "tokens",
        "corpus": corpus.fingerprint(),
        "tokenizer": tokenizer.fingerprint(),
        "longest_piece": 2 * PIECE,
    }

    def build(folder: Path) -> None:
        dtype = tokenizer.dtype
        n_bytes: dict[Split, int] = {}
        done, total = 0, characters(corpus, progress) if progress else None

        def show(split: str, written: Written) -> None:
            if progress is not None:
                share = min(1.0, (done + written.n_characters) / total) if total else None
                progress(split, written.n_tokens, share)

        with encoding(tokenizer, dtype, workers) as encode:
            for split in corpus.splits:
                written = write_stream(corpus, split, encode, folder, show)
                n_bytes[split] = written.n_bytes
                done += written.n_characters
        digests = {split: np.memmap(folder / f"{split}.digests", dtype=np.uint64, mode="r") for split in n_bytes}
        notes, warnings = corpus.remarks(n_bytes, digests)
        info = {
            "dtype": dtype.name,
            "eos_id": tokenizer.eos_id,
            "n_bytes": n_bytes,
            "notes": notes,
            "warnings": warnings,
        }
        (folder / INFO).write_text(json.dumps(info))
        for split in n_bytes:
            save_starts(folder / f"{split}.ends", folder / f"{split}.starts.npy")
            for name in ("ends", "digests", "written.json"):
                (folder / f"{split}.{name}").unlink()

    return TokenStore(prepared(cache, f"tokens-{fingerprint(inputs)}", build, goes_on=True))


def write_stream(
    corpus: Corpus,
    split: Split,
    encode: Encode,
    folder: Path,
    show: Callable[[str, Written], None],
) -> Written:
    """Write the tokens of all documents of `split`, from where an earlier call ended; return how much that is."""
    with Stream(folder, split) as stream:
        written = stream.written
        if written.complete:
            return written
        pieces = itertools.islice(hashed_pieces(corpus.documents(split)), written.n_pieces, None)
        unsure = 0
        for encoded in encode(pieces):
            stream.append(encoded)
            unsure += encoded.n_characters
            if unsure >= COMMIT:
                stream.commit()
                unsure = 0
            show(split, written)
        stream.commit(complete=True)
        return written


class Stream(contextlib.AbstractContextManager["Stream"]):
    """The files of a split, open behind what is surely on the disk.

    Attributes:
        written: how far it is.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._state = folder / f"{split}.written.json"
        self._paths = {name: folder / f"{split}.{name}" for name in FILES}
        self._open: dict[str, Growing] = {}
        self._agree = False
        """Whether the files and `written` say the same: not while a batch is appended, where a signal may come, too."""
        try:
            self.written = Written(**json.loads(self._state.read_text(encoding="utf-8")))
            for name, path in self._paths.items():
                size, checksum = self.written.files[name]
                self._open[name] = Growing(path, size)
                if self._open[name].checksum() != checksum:
                    raise ValueError(path)
        except (OSError, ValueError, LookupError, TypeError):  # nothing there, or not what was written
            self.__exit__()
            self._state.unlink(missing_ok=True)
            self.written = Written()
            self._open = {name: Growing(path) for name, path in self._paths.items()}

    def append(self, encoded: Encoded) -> None:
        """Write a batch behind what is there."""
        written, self._agree = self.written, False
        self._open["bin"].append(encoded.ids)
        self._open["ends"].append((np.array(encoded.ends, dtype=np.int64) + written.n_tokens).tobytes())
        self._open["digests"].append(np.array(encoded.digests, dtype=np.uint64).tobytes())
        written.n_pieces += encoded.n_pieces
        written.n_tokens += encoded.n_tokens
        written.n_bytes += encoded.n_bytes
        written.n_characters += encoded.n_characters
        self._agree = True

    def commit(self, complete: bool = False) -> None:
        """Wait until all of it is on the disk, then write down how much that is."""
        self.written.files = {name: [file.sync(), file.checksum()] for name, file in self._open.items()}
        self.written.complete = complete
        write_atomically(self._state, json.dumps(asdict(self.written)))

    def __exit__(self, kind: type[BaseException] | None = None, *_: object) -> None:
        """Close the files; where a signal ends this, what was written stays."""
        if kind is not None and not issubclass(kind, Exception) and self._agree:
            self.commit()
        for file in self._open.values():
            file.close()


class Growing:
    """A file that is only appended to, and its checksum. Not through a memory map: a full disk would kill by SIGBUS."""

    def __init__(self, path: Path, size: int = 0) -> None:
        """Open `path` behind its first `size` bytes; what follows them goes."""
        self._file: BinaryIO = open(path, "r+b" if size else "wb")  # noqa: SIM115
        self._digest = xxhash.xxh3_128()
        while size > 0 and (chunk := self._file.read(min(size, CHUNK))):
            self._digest.update(chunk)
            size -= len(chunk)
        self._file.truncate()

    def append(self, content: bytes) -> None:
        """Write `content` behind what is there."""
        self._file.write(content)
        self._digest.update(content)

    def checksum(self) -> str:
        """The 128 bits of xxh3 of the whole file as hex digits."""
        return self._digest.hexdigest()

    def sync(self) -> int:
        """Wait until the file is on the disk; return its size."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """End it."""
        self._file.close()


def save_starts(ends: Path, path: Path) -> None:
    """Write, as `numpy.save` would, where documents start: at 0, and where the one before ends."""
    n = ends.stat().st_size // 8
    with open(ends, "rb") as source, open(path, "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.int64)), "fortran_order": False, "shape": (n,)}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(8))
        left = 8 * (n - 1)
        while left > 0:
            chunk = source.read(min(left, CHUNK))
            file.write(chunk)
            left -= len(chunk)


def characters(corpus: Corpus, progress: Progress) -> int | None:
    """Count the text of all splits, which takes a hundredth of the time of tokenising; None where it is far away."""
    total = 0
    for number, document in enumerate(corpus.everything()):
        total += len(document)
        if number % 256 == 0:
            progress("reading", 0, None)
    return total or None
