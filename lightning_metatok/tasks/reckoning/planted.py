"""Planted: a label that depends on exactly k places of a long string, and on nothing else of it.

    text      plum 1 nail saw 0 fig 1.⏎Q: parity⏎A: 0        symbols  a3 one a9 a1 zero a4 one ? zero

k bits are planted at random places among other items; the label is their XOR, so that each bit changes it, and no other
item ever does. Strings grow by items while k stays: the length at which a model is asked grows, what it must attend to
does not. Segments are the bits, all of which the answer depends on: `hint` and `every` put the same marks. Content: the
whole string. Slices: `n_items`, `n_planted`.
Coupled position ids: planted bits and the label share 1, all else has 0 (position coupling for sparse tasks;
`model.position_options.predict` has the model predict the ids).
Source: the k-sparse planted correlations of Golowich et al. 2025, arXiv 2502.16792; the wording is ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN
from lightning_metatok.tasks.task import Task


@dataclass(frozen=True)
class Planted(Task):
    """Find the XOR of a few planted bits."""

    name: ClassVar[str] = "planted"
    sketch: ClassVar[str] = "`a3 <meta> one <meta> a9 a1 <meta> zero <meta> ?` → `one`"
    grows_with: ClassVar[str] = "other items"
    size_field: ClassVar[str] = "n_items"
    default_size: ClassVar[tuple[int, int]] = (8, 32)
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "zero": ("zero", " 0"),
        "one": ("one", " 1"),
        "stop": ("?", "."),
        "question": ("", "\nQ: parity\nA:"),
    }

    n_items: tuple[int, int] | None = None
    """Items of the string, planted bits included, [fewest, most]."""
    n_planted: int = 3
    """Bits that the label depends on: k."""
    pool: int | None = None
    """Different other items; all there are when not given."""

    @property
    def smallest_size(self) -> int:
        """All bits fit into the string."""
        return self.n_planted

    def check(self) -> None:
        """There is a bit."""
        self.check_integer("n_planted", 1, 1000)
        if self.pool is not None:
            self.check_integer("pool", 1, len(self.lexicon.everything), ", the items there are")
        super().check()

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts items."""
        W, word, items = int(size_n.max()), self.lexicon.phrase, self.lexicon.everything
        exists_nW = np.arange(W) < size_n[:, None]
        planted_nW = exists_nW & (np.argsort(draws.shuffle("places", exists_nW), axis=1) < self.n_planted)
        bits_nW = draws.integers("bits", 0, 1, W)
        bit_words = np.array([word["zero"], word["one"]])
        other_nW = items[draws.integers("items", 0, (self.pool or len(items)) - 1, W)]
        words_nW = np.where(planted_nW, bit_words[bits_nW], other_nW)
        label_n = (bits_nW * planted_nW).sum(axis=1) % 2

        draft = Draft(draws.n)
        opens_nW, closes_nW = np.where(planted_nW, OPEN, ABSENT), np.where(planted_nW, CLOSE, ABSENT)
        draft.put(
            np.stack([opens_nW, words_nW, closes_nW], axis=2),
            source=planted_nW[..., None] & (np.arange(3) == 1),
            target=planted_nW[..., None],
            where=exists_nW[..., None],
            ids=planted_nW[..., None] * np.ones(3, dtype=np.int64),
        )
        draft.put(word["stop"], ids=0)
        draft.end_body()
        draft.put(word["question"], ids=0)
        draft.put(bit_words[label_n], answer=True, ids=1)
        draft.content(np.where(exists_nW, words_nW, ABSENT))
        draft.slices |= {"n_items": size_n, "n_planted": np.full(draws.n, self.n_planted)}
        return draft
