"""Draft: prompts as words, side by side, and what each word is to a model: body, answer, source, segment.

put OPEN a4 CLOSE; end_body; put ? L9 (key) a4 (answer)     a task writes columns of words, for all prompts at once
render                                                      words -> token ids with flags, without marks
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_metatok.arrays import IntArray
from lightning_metatok.data.counter import random_bits
from lightning_metatok.data.examples import (
    ANSWER,
    BODY,
    CLOSES,
    CLOSES_TARGET,
    OPENS,
    OPENS_TARGET,
    SOURCE,
    Examples,
)
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN, Lexicon

KEY_END = -4
"""In place of a word: the key that a question asks about has just ended."""


class Draft:
    """Words of n prompts side by side; what is ABSENT leaves no trace.

    Attributes:
        content_n: uint64, hash of what the answer depends on, see `content`.
        slices: what accuracy can be split by, int64 [n] each.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._columns: list[tuple[IntArray, NDArray[np.uint8], IntArray | None]] = []
        self._in_body = True
        self.content_n = np.zeros(n, dtype=np.uint64)
        self.slices: dict[str, IntArray] = {}

    def put(
        self,
        words: ArrayLike,
        *,
        answer: ArrayLike = False,
        source: ArrayLike = False,
        target: ArrayLike = False,
        key: bool = False,
        where: ArrayLike = True,
        ids: ArrayLike | None = None,
    ) -> None:
        """Append words, ABSENT, OPEN and CLOSE among them.

        Args:
            words: one for all prompts, or [n], or [n, ...] read row by row.
            answer: these words are scored. source: the answer stands here. target: these OPEN and CLOSE belong to a
                segment that the answer depends on. where: elsewhere there is nothing. ids: position ids, where the task
                couples words; those of a slot do not matter. All broadcast against `words`.
            key: these words, in the question, are the key it asks about; a mark may stand behind the last of them.
        """
        words_ = np.asarray(words, dtype=np.int64)
        if words_.ndim == 0:
            words_ = np.full(self.n, words_)
        shape = np.broadcast_shapes(words_.shape, *(np.shape(x) for x in (answer, source, target, where)))
        words_ = np.where(where, np.broadcast_to(words_, shape), ABSENT)
        flags = np.full(shape, BODY if self._in_body else 0, dtype=np.uint8)
        flags |= np.where(answer, ANSWER, np.uint8(0)) | np.where(source, SOURCE, np.uint8(0))
        targets = np.broadcast_to(target, shape)
        for slot, flag, wanted in ((OPEN, OPENS, OPENS_TARGET), (CLOSE, CLOSES, CLOSES_TARGET)):
            flags = np.where(words_ == slot, np.where(targets, flag | wanted, flag), flags).astype(np.uint8)
        if ids is not None:
            ids = np.broadcast_to(np.asarray(ids, dtype=np.int64), shape).reshape(self.n, -1)
        words_ = words_.reshape(self.n, -1)
        self._columns.append((words_, flags.reshape(self.n, -1), ids))
        if key:
            ends_n1 = np.where((words_ != ABSENT).any(axis=1), KEY_END, ABSENT)[:, None]
            no_flags_n1 = np.zeros(ends_n1.shape, dtype=np.uint8)
            self._columns.append((ends_n1, no_flags_n1, None if ids is None else ids[:, -1:]))

    def end_body(self) -> None:
        """What follows is the question: no random marks there."""
        self._in_body = False

    def content(self, *parts: ArrayLike) -> None:
        """Say what the answer depends on: integers, [n] or [n, ...] each; ABSENT leaves no trace."""
        for part in parts:
            part_nm = np.asarray(part, dtype=np.int64).reshape(self.n, -1)
            hashed_nm = np.where(part_nm == ABSENT, np.uint64(0), random_bits(0, np.arange(part_nm.shape[1]), part_nm))
            self.content_n = random_bits(0, self.content_n, np.bitwise_xor.reduce(hashed_nm, axis=1))

    def render(self, lexicon: Lexicon, *, coupled: bool = False) -> tuple[Examples, IntArray]:
        """Return the prompts as tokens, without meta-tokens, and how many keys of a question end before each, [tokens].

        `coupled`: with the words' position ids.

        All tokens of a word have its id. A task that gives none couples marks alone: its tokens have 0, 1, 2, ...
        """
        words = np.concatenate([words for words, _, _ in self._columns], axis=1)
        flags = np.concatenate([flags for _, flags, _ in self._columns], axis=1)
        given = [ids for _, _, ids in self._columns if ids is not None]
        assert len(given) in (0, len(self._columns)), "some words have position ids, others none"
        present = words != ABSENT
        rows, _ = np.nonzero(present)
        words, flags = words[present], flags[present]
        is_slot = words < 0
        tokens, counts_of_words = lexicon.expand(words[~is_slot])
        counts = np.zeros(len(words), dtype=np.int64)
        counts[~is_slot] = counts_of_words
        token_flags = np.repeat(np.where(is_slot, 0, flags), counts).astype(np.uint8)
        # A slot's flags go to the first token after it.
        first_token = np.cumsum(counts) - counts
        np.bitwise_or.at(token_flags, first_token[is_slot], flags[is_slot] & ~BODY)
        key_ends = np.bincount(first_token[words == KEY_END], minlength=len(tokens))
        lengths = np.bincount(rows, weights=counts, minlength=self.n).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids = None
        if coupled and given:
            ids = np.repeat(np.concatenate(given, axis=1)[present], counts).astype(np.int32)
        elif coupled:
            ids = (np.arange(len(tokens)) - np.repeat(offsets[:-1], lengths)).astype(np.int32)
        return Examples(tokens, token_flags, offsets, {"length": lengths, **self.slices}, ids), key_ends
