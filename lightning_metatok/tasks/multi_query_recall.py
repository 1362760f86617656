"""Multi-query recall: keys with values, then several of the keys are asked in random order; every answer is scored.

    text      saw: 7,<|meta|> plum: 9<|meta|>, file: 3.
              Q: plum
              A: 9
              Q: ...
    symbols  L9 7 <|meta|> a1 9 <|meta|> a8 3 ? a1 9 ...

The segment is a pair; the targets are all pairs that are asked about. All keys of a prompt are different, values may
repeat. A key is one word, as in the source. Symbols have 512 of them, too few for the level long: there, a key is two
words (L9 a4 7 L0 a1 9 L9 a8 3 ? L0 a1 9). Content: the keys asked, in order, and their values. Slices: `n_pairs`,
`n_queries`.
Source: Arora et al. 2023, "Zoology: Measuring and Improving Recall in Efficient Language Models", section 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.bindings import put_bindings, put_questions
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.keys import Keys
from lightning_metatok.tasks.options import ALL_QUESTION_MARKS
from lightning_metatok.tasks.task import Task

FEWEST_TOKENS = {"symbols": 2, "text": 4}
"""What a pair takes at least, by rendering: key and value; in text also a colon and a comma. No marks."""


@dataclass(frozen=True)
class MultiQueryRecall(Task):
    """Recall the values of several keys."""

    name: ClassVar[str] = "multi_query_recall"
    sketch: ClassVar[str] = "`L9 7 <meta> a4 2 <meta> ? a4` → `2`, several times"
    grows_with: ClassVar[str] = "pairs"
    size_field: ClassVar[str] = "n_pairs"
    default_size: ClassVar[tuple[int, int]] = (4, 16)
    question_marks: ClassVar[tuple[str, ...]] = ALL_QUESTION_MARKS
    content_draws: ClassVar[tuple[str, ...]] = ("values",)
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "colon": ("", ":"),
        "comma": ("", ","),
        "stop": ("?", "."),
        "question": ("", "\nQ:"),
        "answer": ("", "\nA:"),
    }

    n_pairs: tuple[int, int] | None = None
    """Keys with values in a prompt, [fewest, most]; no fewer than `n_queries`."""
    n_queries: int = 4
    """Questions in a prompt, about different keys."""
    key_words: int | None = None
    """Words of a key, 1 or 2; when not given, 1, or 2 where the bin has room for more pairs than keys of one word."""

    @property
    def keys(self) -> Keys:
        """What values are given to."""
        single, fewest = Keys(self.lexicon, 1), FEWEST_TOKENS[self.lexicon.rendering]
        # Marks do not count: keys are the same in every placement.
        enough = self.limits is None or self.limits[1] <= fewest * len(single)
        return Keys(self.lexicon, self.key_words or (1 if enough else 2))

    @property
    def smallest_size(self) -> int:
        """A key is asked once."""
        return self.n_queries

    @property
    def largest_size(self) -> int:
        """Keys of a prompt are different."""
        return len(self.keys)

    def check(self) -> None:
        """Sizes depend on the words of a key, and on how many keys are asked."""
        if self.key_words is not None:
            self.check_integer("key_words", 1, 2)
        self.check_integer("n_queries", 1, self.largest_size, ", the keys there are")
        super().check()
        self.keys.check_reach(self, "key_words")

    def longer(self, multiple: float) -> Task:
        """Return the task at `multiple` times the largest trained length, its keys of as many words as they are now."""
        return Task.longer(replace(self, key_words=self.keys.n_words), multiple)

    def asking_once(self) -> Task:
        """Return the task as it is: several questions are what it is about."""
        return self

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts pairs."""
        n, N, lexicon, word = draws.n, int(size_n.max()), self.lexicon, self.lexicon.phrase
        row_n1 = np.arange(n)[:, None]
        exists_nN = np.arange(N) < size_n[:, None]
        key_nN = self.keys.draw(draws, "keys", size_n)
        key_words_nN2 = self.keys.words(key_nN)
        value_nN = draws.integers("values", 0, len(lexicon.numbers) - 1, N)
        asked_nQ = draws.shuffle("asked", exists_nN)[:, : self.n_queries]
        is_target_nN = np.zeros((n, N), dtype=bool)
        is_target_nN[row_n1, asked_nQ] = True

        draft = Draft(n)
        value_words_nN = lexicon.numbers[value_nN]
        put_bindings(draft, word, key_words_nN2, value_words_nN, target_nW=is_target_nN, exists_nW=exists_nN)
        draft.put(word["stop"])
        draft.end_body()
        put_questions(draft, word, key_words_nN2[row_n1, asked_nQ], value_words_nN[row_n1, asked_nQ])
        draft.content(key_nN[row_n1, asked_nQ], value_nN[row_n1, asked_nQ])
        draft.slices |= {"n_pairs": size_n, "n_queries": np.full(n, self.n_queries)}
        return draft
