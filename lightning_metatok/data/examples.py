"""Examples: many prompts with their answers, flat in memory, and how they become a `Batch`.

    tokens   Fruits : orange , peach . Tools : M hammer , wrench M . Q: item 2 of Tools ? A: wrench
    META                                       x                 x
    ANSWER                                                                                   x
    SOURCE                                                x              where the answer stands
    OPENS             x                            x                  a segment starts before this token,
    CLOSES                           x                              x  or ends before it
    BODY     x      x x      x x     x x     x   x x      x x      x x

Only answers are scored. The arrays may be memory-mapped. OPENS and CLOSES say where marks may stand, whether or
not a meta-token is there, and OPENS_TARGET and CLOSES_TARGET which of these places belong to the segment that
the answer depends on: marks can so be moved without the task that made them (`lightning_metatok.tasks.marks`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from lightning_metatok.data.batch import NOT_SCORED, Batch

META, ANSWER, SOURCE, BODY, OPENS, CLOSES, OPENS_TARGET, CLOSES_TARGET = (np.uint8(1 << bit) for bit in range(8))


@dataclass(frozen=True)
class Example:
    """One prompt with its answer: `tokens` int32 [L] and `flags` uint8 [L], see the module's picture."""

    tokens: NDArray[np.int32]
    flags: NDArray[np.uint8]
    slices: Mapping[str, int] = field(default_factory=dict)

    @property
    def answer(self) -> NDArray[np.int32]:
        """The tokens that are scored."""
        return self.tokens[(self.flags & ANSWER) > 0]


@dataclass(frozen=True)
class Examples:
    """`n` prompts with their answers, one after the other.

    Attributes:
        tokens: int32 [sum of lengths], meta-tokens included.
        flags: uint8, of the same shape: META, ANSWER, SOURCE and so on, added up.
        offsets: int64 [n + 1]; example i is `tokens[offsets[i] : offsets[i + 1]]`.
        slices: what accuracy can be split by, int64 [n] each: `length` and what the task adds.
        position_ids: int32, of the tokens' shape, where the task says which tokens belong together; None: 0, 1, 2, ...
            in every example.
    """

    tokens: NDArray[np.int32]
    flags: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    slices: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    position_ids: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> Example:
        piece = slice(self.offsets[i], self.offsets[i + 1])
        return Example(self.tokens[piece], self.flags[piece], {k: int(v[i]) for k, v in self.slices.items()})

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example, [n]."""
        return np.diff(self.offsets)

    @property
    def n_positions(self) -> int:
        """Positions that there must be for all of them."""
        return int(self.lengths.max()) if self.position_ids is None else int(self.position_ids.max()) + 1

    def rows(self) -> NDArray[np.int64]:
        """Which example each token belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, chosen: ArrayLike) -> "Examples":
        """Return the examples with the numbers `chosen`, in that order, in memory."""
        chosen_n = np.asarray(chosen, dtype=np.int64)
        lengths = self.lengths[chosen_n]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.repeat(self.offsets[chosen_n] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Examples(
            self.tokens[places],
            self.flags[places],
            offsets,
            {name: np.asarray(values)[chosen_n] for name, values in self.slices.items()},
            None if self.position_ids is None else self.position_ids[places],
        )

    def batch(self, chosen: ArrayLike | None = None) -> Batch:
        """Return a `Batch` of the examples `chosen` (all when None), filled up on the right with id 0.

        The filling is document -1, the prompt document 0. It is not scored, and no earlier token sees it.
        """
        part = self if chosen is None else self.take(chosen)
        B, T = len(part), int(part.lengths.max())
        places = part.rows(), np.arange(len(part.tokens)) - np.repeat(part.offsets[:-1], part.lengths)
        tokens_BT = np.zeros((B, T), dtype=np.int64)
        flags_BT = np.zeros((B, T), dtype=np.uint8)
        tokens_BT[places] = part.tokens
        flags_BT[places] = part.flags
        targets_BT = np.full((B, T), NOT_SCORED, dtype=np.int64)
        targets_BT[:, :-1] = np.where(flags_BT[:, 1:] & ANSWER, tokens_BT[:, 1:], NOT_SCORED)
        filled_BT = np.arange(T) >= part.lengths[:, None]
        position_ids_BT = np.tile(np.arange(T), (B, 1))
        if part.position_ids is not None:
            position_ids_BT[:] = 0
            position_ids_BT[places] = part.position_ids
        return Batch(
            tokens_BT=torch.from_numpy(tokens_BT),
            targets_BT=torch.from_numpy(targets_BT),
            meta_mask_BT=torch.from_numpy((flags_BT & META) > 0),
            document_ids_BT=torch.from_numpy(-filled_BT.astype(np.int64)),
            position_ids_BT=torch.from_numpy(position_ids_BT),
        )

    def save(self, folder: Path) -> None:
        """Write the arrays into `folder`, for `load`."""
        for name in ("tokens", "flags", "offsets"):
            np.save(folder / f"{name}.npy", getattr(self, name))
        if self.position_ids is not None:
            np.save(folder / "position_ids.npy", self.position_ids)
        for name, values in self.slices.items():
            np.save(folder / f"slice-{name}.npy", values)
        (folder / "slices.json").write_text(json.dumps(list(self.slices)))

    @classmethod
    def load(cls, folder: Path) -> "Examples":
        """Return the memory-mapped examples of `folder`."""
        tokens, flags, offsets = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("tokens", "flags", "offsets")
        )
        names = json.loads((folder / "slices.json").read_text())
        slices = {name: np.load(folder / f"slice-{name}.npy", mmap_mode="r") for name in names}
        ids = folder / "position_ids.npy"
        return cls(tokens, flags, offsets, slices, np.load(ids, mmap_mode="r") if ids.exists() else None)


def concatenate(parts: list[Examples]) -> Examples:
    """Return the examples of all `parts`, in order; they have the same slices, and all or none have position ids."""
    ids = [part.position_ids for part in parts if part.position_ids is not None]
    assert len(ids) in (0, len(parts)), "some examples have position ids, others none"
    lengths = np.concatenate([part.lengths for part in parts])
    return Examples(
        np.concatenate([part.tokens for part in parts]),
        np.concatenate([part.flags for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]),
        {name: np.concatenate([part.slices[name] for part in parts]) for name in parts[0].slices},
        np.concatenate(ids) if ids else None,
    )
