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
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_metatok.data.splits import Split
from lightning_metatok.errors import UserError

INFO = "store.json"


class Tokens(Protocol):
    """What blocks are cut from: streams of tokens, on disk or in memory."""

    def stream(self, split: Split) -> NDArray[np.unsignedinteger]:
        """Return all token ids of `split`."""

    def document_starts(self, split: Split) -> NDArray[np.int64]:
        """Return where in the stream documents start."""

    def n_tokens(self, split: Split) -> int:
        """Return the length of the stream."""


class TokenStore:
    """The token streams of a corpus, one a split, read-only; see `writing.prepare_tokens`.

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


class Blocks(Protocol):
    """Blocks by their numbers; what `stream.BatchBuilder` makes batches of.

    Attributes:
        split: what they are of. length: tokens in each.
    """

    split: Split
    length: int

    def __len__(self) -> int:
        """Return how many there are. TypeError where they come without end."""

    def tokens(self, indices_B: NDArray[np.integer]) -> Tensor:
        """Return the blocks `indices_B` as int64 [B, length]."""

    def document_ids(self, indices_B: NDArray[np.integer]) -> Tensor:
        """Return int64 [B, length]: the number of the document within each block."""


class PackedBlocks:
    """Blocks of `length` tokens out of the stream of `split`, one after another, or at the places `starts`.

    Args:
        starts: where in the stream the blocks start, for blocks that lie apart or overlap; by default block i
            starts at i * length.

    Raises:
        UserError: the split is shorter than one block.
    """

    def __init__(self, store: Tokens, split: Split, length: int, starts: NDArray[np.integer] | None = None) -> None:
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
