"""Documents as one stream of token ids on disk, and blocks of any length as views of it.

    documents   [the cat sat] [on] [a mat]
    stream       the cat sat ⏎ on ⏎ a mat ⏎        ⏎ = <|endoftext|>, the last token of each document
    blocks of 4 |the cat sat ⏎|on ⏎ a mat|⏎ ...     block i = stream[4 i : 4 i + 4], the remainder is left out
    document ids  0   0   0  0  0 0 1  1

The stream is stored once and read through a memory map. Blocks hold no data of their own, because the
ablations read the same corpus at one, two and four times the training length, and because blocks with
meta-tokens are shorter.
"""

import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from lightning_metatok.data.cache import fingerprint, prepared
from lightning_metatok.data.corpora import Corpus, Split
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError

INFO = "store.json"
PIECE = 1 << 16
"""Characters: longer documents are tokenised in pieces, to bound memory: a character takes about 100 bytes while it is
tokenised. Pieces end between words, where byte-level tokenizers cut anyway, so that ids are those of the whole."""
BATCH = 1 << 21
"""Characters tokenised at once, on all cores."""
BORDER = re.compile(r"(?<=\w) (?=\w)")
LINE_BORDER = re.compile(r"(?<=\S)\n(?=\S)")


class TokenStore:
    """The token streams of a corpus, one a split, read-only; see `prepare_tokens`.

    Small to pickle: a worker process gets the folder's name and opens its own memory map.

    Attributes:
        folder: where the files are.
        eos_id: the last token of every document.
        splits: those that there are; there may be no text to test on.
        notes, warnings: lines about how the corpus was split, for people to read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        info = json.loads((folder / INFO).read_text())
        self.eos_id: int = info["eos_id"]
        self._dtype = np.dtype(info["dtype"])
        self._n_bytes: dict[str, int] = info["n_bytes"]
        self.splits: tuple[Split, ...] = tuple(info["n_bytes"])
        self.notes: list[str] = info["notes"]
        self.warnings: list[str] = info["warnings"]
        self._open: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def stream(self, split: Split) -> NDArray[np.unsignedinteger]:
        """Return all token ids of `split`, one document after another (uint16 or uint32, 1-D memory map)."""
        if split not in self._open:
            self._open[split] = np.memmap(self.folder / f"{split}.bin", dtype=self._dtype, mode="r")
        return self._open[split]

    def document_starts(self, split: Split) -> NDArray[np.int64]:
        """Return where in the stream each document starts (int64, ascending from 0)."""
        key = f"{split}.starts"
        if key not in self._open:
            self._open[key] = np.load(self.folder / f"{key}.npy", mmap_mode="r")
        return self._open[key]

    def n_tokens(self, split: Split) -> int:
        """Return the length of the stream."""
        return len(self.stream(split))

    def n_bytes(self, split: Split) -> int:
        """Return the UTF-8 bytes of all documents of `split`; <|endoftext|> counts none."""
        return self._n_bytes[split]


class PackedBlocks:
    """Blocks of `length` tokens out of the stream of `split`, one after another, or at the places `starts`.

    Args:
        starts: where in the stream the blocks start, for blocks that lie apart or overlap; by default block i
            starts at i * length.

    Raises:
        UserError: the split is shorter than one block.
    """

    def __init__(self, store: TokenStore, split: Split, length: int, starts: NDArray[np.integer] | None = None) -> None:
        assert length > 0, "a block holds at least one token"
        n_tokens = store.n_tokens(split)
        if n_tokens < length:
            raise UserError(
                f"data.corpus: its {split} split has {n_tokens} tokens, less than one block of {length}; "
                f"give more text or a smaller data.block_size"
            )
        if starts is None:
            starts = np.arange(n_tokens // length) * length
        assert starts.min() >= 0, "blocks start in the stream"
        assert starts.max() + length <= n_tokens, "blocks end in the stream"
        self.store, self.split, self.length = store, split, length
        self._starts = starts.astype(np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def tokens(self, indices_B: NDArray[np.integer]) -> Tensor:
        """Return the blocks `indices_B` (0 ... len - 1) as int64 [B, length]."""
        return torch.from_numpy(self.store.stream(self.split)[self._slots(indices_B)].astype(np.int64))

    def document_ids(self, indices_B: NDArray[np.integer]) -> Tensor:
        """Return int64 [B, length]: 0 in the first document of each block, 1 in the next one, and so on."""
        slots_BS = self._slots(indices_B)
        documents_BS = np.searchsorted(self.store.document_starts(self.split), slots_BS, side="right")
        return torch.from_numpy(documents_BS - documents_BS[:, :1])

    def _slots(self, indices_B: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the places in the stream [B, length]."""
        inside_B = (indices_B >= 0) & (indices_B < len(self))
        assert inside_B.all(), f"blocks run from 0 to {len(self) - 1}"
        return self._starts[indices_B][:, None] + np.arange(self.length)


def prepare_tokens(
    corpus: Corpus,
    tokenizer: MetaTokenizer,
    cache: Path,
    progress: Callable[[str, int], None] | None = None,
) -> TokenStore:
    """Return the token streams of `corpus`, from the folder `cache` where they were prepared before.

    Args:
        progress: called with (split, tokens written so far) after every few million characters.

    Raises:
        UserError: what reading the corpus raises, or a cache folder that is full or cannot be written.
    """
    inputs = {
        "kind": "tokens",
        "corpus": corpus.fingerprint(),
        "tokenizer": tokenizer.fingerprint(),
        "longest_piece": 2 * PIECE,
    }

    def build(folder: Path) -> None:
        dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
        n_bytes: dict[Split, int] = {}
        digests: dict[Split, NDArray[np.uint64]] = {}
        for split in corpus.splits:
            with open(folder / f"{split}.bin", "wb") as file:
                starts, n_bytes[split], digests[split] = write_stream(corpus, split, tokenizer, file, dtype, progress)
            np.save(folder / f"{split}.starts.npy", starts)
        notes, warnings = corpus.remarks(n_bytes, digests)
        info = {
            "dtype": dtype.name,
            "eos_id": tokenizer.eos_id,
            "n_bytes": n_bytes,
            "notes": notes,
            "warnings": warnings,
        }
        (folder / INFO).write_text(json.dumps(info))

    return TokenStore(prepared(cache, f"tokens-{fingerprint(inputs)}", build))


def write_stream(
    corpus: Corpus,
    split: Split,
    tokenizer: MetaTokenizer,
    file: BinaryIO,
    dtype: np.dtype[Any],
    progress: Callable[[str, int], None] | None,
) -> tuple[NDArray[np.int64], int, NDArray[np.uint64]]:
    """Write the tokens of all documents of `split`; return their starts (int64), UTF-8 bytes and hashes (uint64)."""
    ends, digests = array("q"), array("Q")
    n_tokens = n_bytes = 0

    def documents() -> Iterator[str]:
        for document in corpus.documents(split):
            digest = xxhash.xxh3_64()
            for start in range(0, len(document), PIECE):
                digest.update(document[start : start + PIECE].encode())
            digests.append(digest.intdigest())
            yield document

    for batch in batches(documents()):
        ids_of_pieces = tokenizer.encode_documents([piece for piece, _ in batch])
        for ids, (piece, last) in zip(ids_of_pieces, batch, strict=True):
            n_bytes += len(piece.encode())
            if last:
                ids = [*ids, tokenizer.eos_id]
            # Not through a memory map: on a full disk that would end the process with a bus error.
            file.write(np.array(ids, dtype=dtype).tobytes())
            n_tokens += len(ids)
            if last:
                ends.append(n_tokens)
        if progress is not None:
            progress(split, n_tokens)
    starts = np.concatenate([[0], np.frombuffer(ends, dtype=np.int64)[:-1]]).astype(np.int64)
    return starts, n_bytes, np.frombuffer(digests, dtype=np.uint64)


def batches(documents: Iterable[str]) -> Iterator[list[tuple[str, bool]]]:
    """Yield lists of about `BATCH` characters of (piece of a document, whether it is the last one)."""
    batch: list[tuple[str, bool]] = []
    size = 0
    for document in documents:
        start = 0
        for piece in pieces(document, PIECE):
            start += len(piece)
            batch.append((piece, start == len(document)))
            size += len(piece)
            if size >= BATCH:
                yield batch
                batch, size = [], 0
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
