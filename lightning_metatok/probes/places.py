"""Where things are in the prompts of a batch, as masks that probes and interventions are made of.

tokens     L0 M a4 a7 M  L9 M a1 a5 M  ?  L9 2  a5
meta          x       x     x       x                  marks
opening                     x                          the mark that opens the target
closing                             x                  the mark that closes it
target                        x  x                     the list that is asked about, without its marks
body       x  x x  x  x  x  x x  x  x                  what is kept before the question is read
question                               x  x  x  x      and the answer, which is read while it is scored
last                                         x         whoever predicts a token of the answer
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_metatok.data import Batch
from lightning_metatok.data.examples import BODY, CLOSES, CLOSES_TARGET, META, OPENS, OPENS_TARGET, Examples
from lightning_metatok.probes.base import Subject
from lightning_metatok.tasks.marks import marks_of_question
from lightning_metatok.tasks.pairs import in_target


@dataclass(frozen=True)
class Places:
    """Masks of one batch, bool [B, T] each, False at the filling; see the module's picture."""

    meta_BT: Tensor
    opening_BT: Tensor
    closing_BT: Tensor
    target_BT: Tensor
    body_BT: Tensor
    question_BT: Tensor
    last_BT: Tensor

    @property
    def marks_BT(self) -> Tensor:
        """Marks of the body. Those of a question belong to it: they read what the body's marks may hold."""
        return self.meta_BT & self.body_BT

    @property
    def text_BT(self) -> Tensor:
        """The body without its marks."""
        return self.body_BT & ~self.meta_BT

    @property
    def rest_BT(self) -> Tensor:
        """The body without its marks and the target."""
        return self.text_BT & ~self.target_BT

    @property
    def other_meta_BT(self) -> Tensor:
        """Marks of other segments, those of the question not among them."""
        return self.meta_BT & self.body_BT & ~self.opening_BT & ~self.closing_BT


def with_places(subject: Subject) -> Iterator[tuple[Batch, Places]]:
    """The batches of a subject that has prompts, each with its places."""
    yield from _located(subject.prompts, list(subject.batches), subject.device)


def located(examples: Examples, rows: int, device: torch.device) -> Iterator[tuple[Batch, Places]]:
    """Batches of at most `rows` examples in their order, each with its places, on `device`."""
    numbers = np.arange(len(examples))
    batches = [examples.batch(numbers[i : i + rows]).to(device) for i in range(0, len(numbers), rows)]
    yield from _located(examples, batches, device)


def _located(examples: Examples, batches: list[Batch], device: torch.device) -> Iterator[tuple[Batch, Places]]:
    masks, start = flat_places(examples), 0
    for batch in batches:
        n, T = batch.tokens_BT.shape
        piece = slice(examples.offsets[start], examples.offsets[start + n])
        lengths = examples.lengths[start : start + n]
        places = np.repeat(np.arange(n), lengths), np.concatenate([np.arange(length) for length in lengths])
        padded = {}
        for name, mask in masks.items():
            mask_BT = np.zeros((n, T), dtype=bool)
            mask_BT[places] = mask[piece]
            padded[name] = torch.from_numpy(mask_BT).to(device)
        start += n
        yield batch, Places(**padded, last_BT=batch.targets_BT >= 0)


def flat_places(examples: Examples) -> dict[str, NDArray[np.bool_]]:
    """The masks of all examples, bool [tokens] each."""
    flags, rows = np.asarray(examples.flags), examples.rows()
    meta = (flags & META) > 0
    at = np.arange(len(flags))
    last_n = np.full(len(examples), -1)
    in_body = ((flags & (BODY | META)) > 0) & ~marks_of_question(examples)
    np.maximum.at(last_n, rows[in_body], at[in_body])
    opening, closing = _marks_of_targets(flags, meta)
    return {
        "meta_BT": meta,
        "opening_BT": opening,
        "closing_BT": closing,
        "target_BT": in_target(examples),
        "body_BT": at <= last_n[rows],
        "question_BT": at > last_n[rows],
    }


def _marks_of_targets(flags: NDArray[np.uint8], meta: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
    """The marks directly before a token that opens a target, and directly before one that closes it.

    Of two marks between two segments the first closes, the second opens.
    """
    at = np.arange(len(flags))
    next_token = np.minimum.accumulate(np.where(meta, len(flags) - 1, at)[::-1])[::-1]
    after = flags[next_token]
    first = meta & ~np.concatenate([[False], meta[:-1]])
    last = meta & ~np.concatenate([meta[1:], [False]])
    alone = first & last
    does_both = ((after & CLOSES) > 0) & ((after & OPENS) > 0)
    opening = last & ((after & OPENS_TARGET) > 0)
    closing = first & ((after & CLOSES_TARGET) > 0)
    # One mark where a segment ends and another begins belongs to the target, whichever of the two that is.
    opening &= ~(alone & does_both & closing)
    return opening, closing
