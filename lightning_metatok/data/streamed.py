"""Blocks of text that is tokenised as it is read, drawn through a shuffle buffer; the batch of a step stays a pure
function of (step, rank), as in `stream`.

    blocks      0 1 2 3 | 4 5 6 7 | 8 9        those of the whole stream; a buffer holds 4, the rest is read later
    epoch 0     2 0 3 1 | 5 4 7 6 | 9 8        permutation(seed, epoch, window) of each window
    epoch 1     1 3 0 2 | 6 7 4 5 | 8 9

Every block is drawn once in an epoch. A buffer of all blocks draws them in the order of `stream`, to the bit. A run
that goes on at a step reads the windows that its blocks stand in, no other. How many blocks there are is known when
somebody has read to the end.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_metatok.data.blocks import PackedBlocks
from lightning_metatok.data.counter import permutation
from lightning_metatok.data.splits import Split
from lightning_metatok.data.stream import PERMUTATION, BatchBuilder
from lightning_metatok.data.windows import StreamedText, Window
from lightning_metatok.errors import UserError

Place = tuple[int, int]
"""(epoch, window), in the order of reading."""


@dataclass(frozen=True)
class Buffer:
    """The blocks of a window in memory, and the order that they are drawn in."""

    blocks: PackedBlocks
    order: NDArray[np.int64]


class StreamedBlocks:
    """Blocks of `length` tokens by the number of the sample that they are, in order of drawing, over all epochs.

    Memory: a buffer, two where a batch lies on the border, and with workers as much text again that is on its way.

    Args:
        text: what is read.
        length: source tokens in a block.
        buffer: blocks that are drawn from.
        seed: chooses the order.
    """

    split: Split = "train"

    def __init__(self, text: StreamedText, length: int, buffer: int, seed: int) -> None:
        self.text, self.length, self.buffer, self.seed = text, length, buffer, seed
        self._buffers: dict[Place, Buffer] = {}
        self._reading: Iterator[Window] | None = None
        self._next: Place = (0, 0)

    def __len__(self) -> int:
        raise TypeError("epochs follow each other without end")

    @property
    def n_blocks(self) -> int | None:
        """Blocks of an epoch; None as long as nobody has read to the end of the text.

        Raises:
            UserError: there is not one.
        """
        if self.text.marks.n_tokens is None:
            return None
        n_tokens = self.text.marks.n_tokens
        if n_tokens < self.length:
            raise UserError(
                f"data.corpus: its {self.split} split has {n_tokens} tokens, less than one block of {self.length}; "
                f"give more text or a smaller data.block_size"
            )
        return n_tokens // self.length

    def tokens(self, samples_B: NDArray[np.integer]) -> Tensor:
        """Return the blocks of `samples_B` as int64 [B, length]."""
        return torch.cat([found.tokens(rows) for found, rows in self._drawn(samples_B)])

    def document_ids(self, samples_B: NDArray[np.integer]) -> Tensor:
        """Return int64 [B, length]: 0 in the first document of each block, 1 in the next one, and so on."""
        return torch.cat([found.document_ids(rows) for found, rows in self._drawn(samples_B)])

    def first_tokens(self, most: int) -> NDArray[np.unsignedinteger]:
        """Return the first tokens of the text in its order, no more than a buffer holds."""
        return self._buffer(self._place(0)[0]).blocks.store.stream("train")[:most]

    def close(self) -> None:
        """End what is being read."""
        self._buffers.clear()
        self._reading = None
        self.text.close()

    def _drawn(self, samples_B: NDArray[np.integer]) -> list[tuple[PackedBlocks, NDArray[np.int64]]]:
        """Return (blocks of a buffer, numbers in it), for runs of samples that lie in the same one."""
        places = [self._place(sample) for sample in samples_B.tolist()]
        first = min(place for place, _ in places)
        drawn: list[tuple[PackedBlocks, NDArray[np.int64]]] = []
        at = 0
        while at < len(places):
            place = places[at][0]
            inside = [number for other, number in places[at:] if other == place]
            buffer = self._buffer(place)
            drawn.append((buffer.blocks, buffer.order[inside]))
            at += len(inside)
        self._buffers = {place: buffer for place, buffer in self._buffers.items() if place >= first}
        return drawn

    def _place(self, sample: int) -> tuple[Place, int]:
        """Return the window of a sample and its number among those drawn from there."""
        if self.n_blocks is None and (place := (0, sample // self.buffer)) not in self._buffers:
            self._read(place)
        epoch, sample = (0, sample) if self.n_blocks is None else divmod(sample, self.n_blocks)
        window, number = divmod(sample, self.buffer)
        return (epoch, window), number

    def _buffer(self, place: Place) -> Buffer:
        if place not in self._buffers:
            self._read(place)
        if place not in self._buffers:
            raise UserError(
                f"data.corpus: its text ends before it did when it was read first; it has changed: remove "
                f"{self.text.marks.path} and begin a new run"
            )
        return self._buffers[place]

    def _read(self, place: Place) -> None:
        """Read the window at `place` into a buffer, where there is a block in it."""
        if self._reading is None or self._next != place:
            self._reading = self.text.windows(self.buffer * self.length, place[1])
        window = next(self._reading, None)
        self._next = (place[0], place[1] + 1)
        if window is None or len(window.ids) < self.buffer * self.length:
            next(self._reading, None)  # so that the end of the text is known
            self._reading = None
        if window is not None and len(window.ids) >= self.length:
            blocks = PackedBlocks(window, "train", self.length)
            order = permutation(len(blocks), self.seed ^ PERMUTATION, place[0] + (place[1] << 32))
            self._buffers[place] = Buffer(blocks, order)


class StreamedBatches(BatchBuilder):
    """Batches of blocks that come in the order of drawing."""

    def shuffled(self, samples_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the samples as they are."""
        return samples_B
