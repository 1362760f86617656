"""Variable tracking: assignments that copy one another; what is the value of the last variable of a chain?

    text     <|meta|> saw = 7<|meta|>; plum = 40;<|meta|> fig = saw<|meta|>; kiwi = plum;<|meta|> file = fig<|meta|>;
              Q: what is file?
              A: 7
    symbols  <|meta|> a4 = 7 <|meta|> ; L9 = 40 ; <|meta|> a1 = a4 <|meta|> ; L2 = L9 ; ... ? L7 7

Chains are shuffled into each other; an assignment comes after the one that it copies. All variables of a prompt are
different; they have one word each, or two with `variable_words=2`. The segment is an assignment; the targets are all
assignments of the chain that is asked about. Content: the value and the variables of that chain. Slices: `n_chains`,
`hops` (how often its value is copied).
Source: Hsieh et al. 2024, "RULER: What's the Real Context Size of Your Long-Context Language Models?", section 3;
there, ordinary text makes prompts longer, here other chains do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.keys import Keys
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN
from lightning_metatok.tasks.options import ALL_QUESTION_MARKS
from lightning_metatok.tasks.task import Task

MOST_HOPS = 32
VALUE = 5
"""The column of a first assignment that holds its value: OPEN, two words, "=", ABSENT, value."""


@dataclass(frozen=True)
class VariableTracking(Task):
    """Follow copies of a value back to where it was assigned."""

    name: ClassVar[str] = "variable_tracking"
    sketch: ClassVar[str] = "`a4 = 7 ; a1 = a4 ; ? a1` → `7`"
    grows_with: ClassVar[str] = "chains"
    size_field: ClassVar[str] = "n_chains"
    default_size: ClassVar[tuple[int, int]] = (2, 6)
    question_marks: ClassVar[tuple[str, ...]] = ALL_QUESTION_MARKS
    content_draws: ClassVar[tuple[str, ...]] = ("values",)
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "equals": ("=", " ="),
        "end": (";", ";"),
        "question": ("?", "\nQ: what is"),
        "answer": ("", "?\nA:"),
    }

    n_chains: tuple[int, int] | None = None
    """Chains of assignments in a prompt, [fewest, most]."""
    hops: tuple[int, int] = (2, 4)
    """Copies in a chain after its first assignment, [fewest, most]."""
    variable_words: int = 1
    """Words of a variable, 1 or 2: symbols have 512 variables of one word and 65,536 of two."""

    @property
    def variables(self) -> Keys:
        """What values are assigned to."""
        return Keys(self.lexicon, self.variable_words)

    @property
    def largest_size(self) -> int:
        """Variables of a prompt are different; all chains may be as long as they can be."""
        return len(self.variables) // (self.hops[1] + 1)

    def check(self) -> None:
        """How many chains there can be depends on the words of a variable and on the hops."""
        self.check_integer("variable_words", 1, 2)
        self.check_range("hops", 0, min(MOST_HOPS, len(self.variables) - 1))
        super().check()
        self.variables.check_reach(self, "variable_words")

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts chains."""
        n, C, H, lexicon = draws.n, int(size_n.max()), self.hops[1] + 1, self.lexicon
        row_n1 = np.arange(n)[:, None]
        hops_nC = draws.integers("hops", *self.hops, C)
        exists_nC1 = (np.arange(C) < size_n[:, None])[..., None]
        exists_nCH = exists_nC1 & (np.arange(H) <= hops_nC[..., None])
        variables_nCH = self.variables.draw(draws, "variables", size_n * H).reshape(n, C, H)
        words_nCH2 = self.variables.words(variables_nCH)
        value_nC = draws.integers("values", 0, len(lexicon.numbers) - 1, C)
        # What stands to the right of "=": the value, then the variable before.
        first_nC12 = np.stack([np.full((n, C), ABSENT), lexicon.numbers[value_nC]], axis=2)[:, :, None]
        copied_nCH2 = np.concatenate([first_nC12, words_nCH2[:, :, :-1]], axis=2)
        target_n = draws.integers("target", 0, size_n - 1)
        is_target_nC = np.arange(C) == target_n[:, None]

        # Random keys put assignments in order; sorted within a chain, they keep its own. What is absent comes last.
        keys_nCH = draws.bits("order", C, H) >> np.uint64(1)
        keys_nCH = np.sort(np.where(exists_nCH, keys_nCH, np.uint64(2**64 - 1)), axis=2)
        order_nA = np.argsort(keys_nCH.reshape(n, C * H), axis=1, kind="stable")
        left_nA2, right_nA2 = (x.reshape(n, C * H, 2)[row_n1, order_nA] for x in (words_nCH2, copied_nCH2))
        exists_nA = exists_nCH.reshape(n, C * H)[row_n1, order_nA]
        is_target_nA = is_target_nC[row_n1, order_nA // H]
        is_source_nA = is_target_nA & (order_nA % H == 0)

        draft = Draft(n)
        word = lexicon.phrase
        # OPEN variable = value CLOSE ;
        opens, equals, closes, end = (np.full((n, C * H, 1), w) for w in (OPEN, word["equals"], CLOSE, word["end"]))
        draft.put(
            np.concatenate([opens, left_nA2, equals, right_nA2, closes, end], axis=2),
            source=is_source_nA[..., None] & (np.arange(8) == VALUE),
            target=is_target_nA[..., None],
            where=exists_nA[..., None],
        )
        draft.end_body()
        row_n = row_n1[:, 0]
        hops_n, value_n = hops_nC[row_n, target_n], value_nC[row_n, target_n]
        draft.put(word["question"])
        draft.put(words_nCH2[row_n, target_n, hops_n], key=True)
        draft.put(word["answer"])
        draft.put(lexicon.numbers[value_n], answer=True)
        draft.content(value_n, np.where(np.arange(H) <= hops_n[:, None], variables_nCH[row_n, target_n], ABSENT))
        draft.slices |= {"n_chains": size_n, "hops": hops_n}
        return draft
