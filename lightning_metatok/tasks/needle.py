"""Needle: a statement hidden in a long text that has nothing to do with it.

    text     ... and so the<|meta|> The special number of plum is 4 7 1 9.<|meta|> parser reads on until ...
              Q: what is the special number of plum?
              A: 4 7 1 9
    symbols  a3 a201 a8 <|meta|> L5 = 4 7 1 9 ; <|meta|> a17 a8 ... ? L5 4 7 1 9

The haystack is real text in `text` (its train split for training, its validation split for testing; a document ends
with a line break), random items in `symbols`. Needles differ in what they are about: with `n_keys` above 1, one of the
keys is asked. With `n_values` above 1, the key asked has as many needles, and all values are the answer, in order.

    haystack   h h h h h h h h h h h h h h h h h     n_hay tokens
    units           N        D     D        N        needles N, decoys D
    prompt     h h NNNN h h [h h] [h h] h h NNNN h

Segments are the needles, targets those that are asked about, and decoys: stretches of haystack, about as long as a
needle, that `every` marks too, so that a mark is no sign of a needle. There are as many decoys as needles, three at
least. Units stand anywhere, with equal odds, and do not overlap. Text is cut between tokens, hence encoding the prompt
anew may give other tokens. Content: the key and its values. Slices: `n_hay`, `n_keys`, `n_values`, `depth` (haystack
before the first needle asked about, in percent).
Source: Kamradt 2023, "Needle in a haystack"; the keys and values are those of Hsieh et al. 2024 (RULER), section 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.arrays import IntArray
from lightning_metatok.data.blocks import TokenStore
from lightning_metatok.data.corpora import Split
from lightning_metatok.errors import UserError
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN
from lightning_metatok.tasks.options import ALL_QUESTION_MARKS
from lightning_metatok.tasks.task import Task

DIGITS = 4
"""Words of a value, each a digit."""
FIRST_DIGIT = 4
"""Where they stand in a needle: OPEN, the statement's start, its key, "is", digits."""
FEWEST_DECOYS = 3
HAY = -5
"""In place of a word, before the haystack is filled in."""
MOST_NEEDLES = 64


@dataclass(frozen=True)
class Needle(Task):
    """Recall a number that is stated once, somewhere in a long text."""

    name: ClassVar[str] = "needle"
    sketch: ClassVar[str] = "`... L5 = 4 7 1 9 ; ... ? L5` → `4 7 1 9`"
    grows_with: ClassVar[str] = "words or real text around it"
    size_field: ClassVar[str] = "n_hay"
    default_size: ClassVar[tuple[int, int]] = (128, 512)
    question_marks: ClassVar[tuple[str, ...]] = ALL_QUESTION_MARKS
    content_draws: ClassVar[tuple[str, ...]] = ("digits",)
    reencodes: ClassVar[bool] = False
    needs_haystack: ClassVar[bool] = True
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "statement": ("", " The special number of"),
        "is": ("=", " is"),
        "stop": (";", "."),
        "one": ("?", "\nQ: what is the special number of"),
        "several": ("?", "\nQ: what are the special numbers of"),
        "comma": ("", ","),
        "answer": ("", "?\nA:"),
    }

    n_hay: tuple[int, int] | None = None
    """Tokens of the haystack, [fewest, most]; needles come on top."""
    n_keys: int = 1
    """Needles about different keys, one of which is asked."""
    n_values: int = 1
    """Needles about the key that is asked, with one value each."""

    @property
    def smallest_size(self) -> int:
        """Decoys need a token each, and are longer where there is room."""
        return max(16, self.n_decoys)

    @property
    def keys(self) -> IntArray:
        """Words that needles are about; in symbols, the haystack has none of them."""
        return self.lexicon.names if self.lexicon.rendering == "symbols" else self.lexicon.everything

    @property
    def n_needles(self) -> int:
        """Needles in a prompt."""
        return self.n_values + self.n_keys - 1

    @property
    def n_decoys(self) -> int:
        """Stretches of haystack that look like a needle to `every`."""
        return max(self.n_needles, FEWEST_DECOYS)

    def check(self) -> None:
        """Needles are few, and real text comes from a corpus."""
        self.check_integer("n_keys", 1, min(MOST_NEEDLES, len(self.keys)))
        self.check_integer("n_values", 1, MOST_NEEDLES)
        super().check()
        if self.lexicon.rendering == "text" and self.haystack is None:
            raise UserError(
                "data.corpus=None: needle hides its statement in real text; expected a corpus, "
                "or data.task_options.rendering=symbols"
            )

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts tokens of the haystack."""
        n, lexicon, word = draws.n, self.lexicon, self.lexicon.phrase
        n_needles, n_decoys, V = self.n_needles, self.n_decoys, self.n_values
        U = n_needles + n_decoys
        row_n1 = np.arange(n)[:, None]
        decoy_n = np.minimum(self._needle_length, size_n // n_decoys)
        rest_n = size_n - n_decoys * decoy_n  # haystack between units

        # Units in order of appearance: which they are, and how much of the rest stands before each.
        depth_nU = draws.bits("depths", U) >> np.uint64(32)
        unit_nU = np.argsort(depth_nU, axis=1, kind="stable")
        before_nU = np.sort((depth_nU * (rest_n[:, None] + 1).astype(np.uint64)) >> np.uint64(32), axis=1)
        is_needle_nU, is_asked_nU = unit_nU < n_needles, unit_nU < V
        key_nK = self.keys[draws.choose("keys", self.n_keys, len(self.keys))]
        key_nU = key_nK[row_n1, np.clip(unit_nU - V + 1, 0, self.n_keys - 1)]
        digit_nUD = draws.integers("digits", 0, min(9, len(lexicon.numbers) - 1), U, DIGITS)
        units_nUW = self._units(is_needle_nU, key_nU, digit_nUD, decoy_n)
        W = units_nUW.shape[2]

        # One row a prompt: the rest of the haystack, with room for each unit where it stands.
        R = int(rest_n.max())
        is_digit_W = (np.arange(W) >= FIRST_DIGIT) & (np.arange(W) < FIRST_DIGIT + DIGITS)
        words_nX = np.full((n, R + U * W), ABSENT)
        owner_nX = np.full((n, R + U * W), -1)  # which unit a word belongs to
        source_nX = np.zeros((n, R + U * W), dtype=bool)
        units_before_nR = (before_nU[:, None, :] <= np.arange(R)[:, None].astype(np.uint64)).sum(axis=2)
        hay_nR = np.arange(R) + W * units_before_nR
        words_nX[row_n1, hay_nR] = np.where(np.arange(R) < rest_n[:, None], HAY, ABSENT)
        start_nU = before_nU.astype(np.int64) + W * np.arange(U)
        places_nY = (start_nU[..., None] + np.arange(W)).reshape(n, U * W)
        words_nX[row_n1, places_nY] = units_nUW.reshape(n, U * W)
        owner_nX[row_n1, places_nY] = np.arange(U).repeat(W)
        source_nX[row_n1, places_nY] = (is_asked_nU[..., None] & is_digit_W).reshape(n, U * W)
        is_hay_nX = words_nX == HAY
        count_nX = np.cumsum(is_hay_nX, axis=1)
        words_nX = np.where(is_hay_nX, self._hay(draws, size_n, count_nX - 1), words_nX)
        target_nX = is_asked_nU[row_n1, owner_nX] & (owner_nX >= 0)
        first_n = np.argmax(is_asked_nU, axis=1)
        depth_n = count_nX[row_n1[:, 0], start_nU[row_n1[:, 0], first_n]]

        draft = Draft(n)
        draft.put(words_nX, source=source_nX, target=target_nX)
        draft.end_body()
        draft.put(word["one" if V == 1 else "several"])
        draft.put(key_nK[:, 0], key=True)
        draft.put(word["answer"])
        value_nVD = digit_nUD[is_asked_nU].reshape(n, V, DIGITS)
        for value in range(V):
            if value > 0:
                draft.put(word["comma"], answer=True)
            draft.put(lexicon.numbers[value_nVD[:, value]], answer=True)
        draft.content(key_nK[:, 0], value_nVD)
        draft.slices |= {
            "n_hay": size_n,
            "n_keys": np.full(n, self.n_keys),
            "n_values": np.full(n, V),
            "depth": np.rint(100 * depth_n / size_n).astype(np.int64),
        }
        return draft

    def _units(
        self, is_needle_nU: NDArray[np.bool_], key_nU: IntArray, digit_nUD: IntArray, decoy_n: IntArray
    ) -> IntArray:
        """Return the words of needles and, elsewhere, of decoys of `decoy_n` tokens, [n, U, W]."""
        word, shape = self.lexicon.phrase, (*is_needle_nU.shape, 1)
        opens, closes = np.full(shape, OPEN), np.full(shape, CLOSE)
        statement, equals, stop = (np.full(shape, word[part]) for part in ("statement", "is", "stop"))
        digits = self.lexicon.numbers[digit_nUD]
        needle_nUW = np.concatenate([opens, statement, key_nU[..., None], equals, digits, stop, closes], axis=2)
        hay_nL = np.where(np.arange(decoy_n.max()) < decoy_n[:, None], HAY, ABSENT)
        hay_nUL = np.repeat(hay_nL[:, None], is_needle_nU.shape[1], axis=1)
        decoy_nUW = np.concatenate([opens, hay_nUL, closes], axis=2)
        W = max(needle_nUW.shape[2], decoy_nUW.shape[2])
        return np.where(is_needle_nU[..., None], widened(needle_nUW, W), widened(decoy_nUW, W))

    @cached_property
    def _needle_length(self) -> int:
        """Tokens of a needle, of the first key there is."""
        word, lexicon = self.lexicon.phrase, self.lexicon
        first = [word["statement"], self.keys[0], word["is"], *lexicon.numbers[:DIGITS], word["stop"]]
        return len(lexicon.expand(np.array(first))[0])

    def _hay(self, draws: Draws, size_n: IntArray, number_nX: IntArray) -> IntArray:
        """Return the words of the haystack, `number_nX` counting them from 0 in each prompt, [n, X]."""
        lexicon = self.lexicon
        if lexicon.rendering == "symbols":
            items_nH = draws.integers("hay", 0, len(lexicon.everything) - 1, int(size_n.max()))
            return lexicon.everything[items_nH[np.arange(draws.n)[:, None], np.maximum(number_nX, 0)]]
        store: TokenStore = self.haystack
        split: Split = "validation" if draws.split == "test" else "train"
        n_tokens, most = store.n_tokens(split), int(size_n.max())
        if n_tokens < most:
            raise UserError(
                f"data.corpus: its {split} split has {n_tokens} tokens, less than one haystack of {most}; "
                f"give more text or a smaller data.task_options.n_hay"
            )
        start_n1 = draws.integers("start", 0, n_tokens - size_n)[:, None]
        ids_nX = store.stream(split)[start_n1 + np.clip(number_nX, 0, size_n[:, None] - 1)].astype(np.int64)
        # The end of a document would be the end of the prompt to a model that has learnt what follows it.
        (line_break,) = lexicon.tokenizer.encode("\n")
        return lexicon.raw(np.where(ids_nX == store.eos_id, line_break, ids_nX))

    def describe(self) -> dict[str, Any]:
        """Return what examples depend on, the text of the haystack among it."""
        if self.lexicon.rendering == "symbols":
            return super().describe()
        return {**super().describe(), "haystack": self.haystack.folder.name}


def widened(words_nUW: IntArray, width: int) -> IntArray:
    """Return `words_nUW` with ABSENT at the end, up to `width`."""
    return np.pad(words_nUW, ((0, 0), (0, 0), (0, width - words_nUW.shape[2])), constant_values=ABSENT)
