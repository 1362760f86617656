"""The words that prompts are made of, and their two renderings as token ids.

    rendering   a prompt of list recall
    text         Fruits: orange, peach. Tools: hammer, wrench.⏎Q: what is item 2 of Tools?⏎A: wrench
    symbols     L0 a4 a7 L9 a1 a4 ? 2 L9 a4

A task writes WORDS (numbers of this lexicon), once for both renderings; a word is one id in `symbols` (or none: a
comma) and any number of ids in `text`. A text word is encoded on its own, which gives the same ids as encoding the
whole prompt as long as words meet at a blank or where a letter meets a punctuation mark: that is where byte-level
tokenizers split text first.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_metatok.arrays import IntArray
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.tasks.words import CATEGORIES

Rendering = Literal["symbols", "text"]

N_NUMBERS, N_NAMES, N_ITEMS = 128, 256, 256
STRUCTURE = ("?", "=", "|", "[", "]", ";", "->", "#", "zero", "one")
"""Symbols that are no number, name or item. New ones go to the end: ids of symbols never change."""

ABSENT, OPEN, CLOSE = -1, -2, -3
"""In place of a word: nothing; a place where a mark may open or close a segment."""


SYMBOLS = (N_NUMBERS, N_NAMES, N_ITEMS)
"""How many there are in `symbols`, when nothing else is said. A small model learns several times faster with few."""


@lru_cache(maxsize=8)
def symbol_tokenizer(n_numbers: int = N_NUMBERS, n_names: int = N_NAMES, n_items: int = N_ITEMS) -> MetaTokenizer:
    """The tokenizer of all tasks in `symbols`: numbers 0, 1, ..., names L0, L1, ..., items a0, a1, ..., structure."""
    return MetaTokenizer.from_words(
        [str(i) for i in range(n_numbers)]
        + [f"L{i}" for i in range(n_names)]
        + [f"a{i}" for i in range(n_items)]
        + list(STRUCTURE)
    )


class Lexicon:
    """All words of a task in one rendering.

    Attributes:
        numbers: words of the numbers 0, 1, 2, ..., int64 [numbers].
        names: words of list names, int64 [names]. In text: Fruits, Tools, ..., and when these are used up Fruits 2, ...
        items: words of the items of each name, int64 [names, items]. In symbols all names have the same items.
        everything: all items there are, int64 [items]; for tasks whose items belong to no name.
    """

    def __init__(
        self,
        rendering: Rendering,
        tokenizer: MetaTokenizer,
        phrases: Mapping[str, tuple[str, str]] | None = None,
        symbols: tuple[int, int, int] = SYMBOLS,
    ) -> None:
        """Encode every word once.

        Args:
            rendering: symbols or text.
            tokenizer: `symbol_tokenizer(*symbols)` for symbols, any byte-level tokenizer for text.
            phrases: words of this task alone: name -> (symbol or "", text).
            symbols: how many numbers, names and items there are, for symbols.
        """
        self.rendering, self.tokenizer = rendering, tokenizer
        texts: list[str] = []

        def add(new: list[str]) -> IntArray:
            texts.extend(new)
            return np.arange(len(texts) - len(new), len(texts))

        if rendering == "symbols":
            n_numbers, n_names, n_items = symbols
            self.numbers = add([str(i) for i in range(n_numbers)])
            self.names = add([f"L{i}" for i in range(n_names)])
            self.everything = add([f"a{i}" for i in range(n_items)])
            self.items = np.tile(self.everything, (n_names, 1))
        else:
            categories = list(CATEGORIES)
            self.numbers = add([f" {i}" for i in range(N_NUMBERS)])
            rounds = [category_name(categories, i) for i in range(N_NAMES)]
            self.names = add([f" {name}" for name in rounds])
            members = np.stack([add([f" {item}" for item in CATEGORIES[category]]) for category in categories])
            self.everything = members.reshape(-1)
            self.items = members[np.arange(N_NAMES) % len(categories)]
        phrases = phrases or {}
        column = 0 if rendering == "symbols" else 1
        self.phrase = dict(zip(phrases, add([both[column] for both in phrases.values()]).tolist(), strict=True))
        pieces = tokenizer.encode_batch(texts)
        self._counts = np.array([len(piece) for piece in pieces], dtype=np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        self._ids = np.concatenate([np.array(piece, dtype=np.int32) for piece in pieces])
        self.n_words = len(texts)

    def raw(self, token_ids: ArrayLike) -> IntArray:
        """Return words that stand for single token ids, for text that is there already as tokens."""
        return np.asarray(token_ids, dtype=np.int64) + self.n_words

    def expand(self, words: IntArray) -> tuple[NDArray[np.int32], IntArray]:
        """Return the token ids of `words` [m], one after the other, and how many each word has, [m]."""
        raw = words >= self.n_words
        known = np.where(raw, 0, words)
        counts = np.where(raw, 1, self._counts[known])
        first = np.cumsum(counts) - counts
        places = np.repeat(self._starts[known] - first, counts) + np.arange(counts.sum())
        tokens = self._ids[np.where(np.repeat(raw, counts), 0, places)]
        return np.where(np.repeat(raw, counts), np.repeat(words - self.n_words, counts), tokens).astype(
            np.int32
        ), counts


def category_name(categories: list[str], i: int) -> str:
    """Return the name of list `i`: a category, from the second round on with a number."""
    turn, place = divmod(i, len(categories))
    return categories[place] if turn == 0 else f"{categories[place]} {turn + 1}"
