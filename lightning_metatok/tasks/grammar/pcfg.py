"""PCFG: a string through functions, nested in one another, that edit it.

    text      append reverse plum saw, fig.⏎Q: result⏎A: saw plum fig.        symbols  L6 L1 a2 a9 ; a4 ? a9 a2 a4 ]

Functions: copy, reverse, shift (the first item to the end), swap_first_last, echo (the last item once more), repeat
(all once more), append (the other string behind), prepend (before), remove_first, remove_second (one of two strings).
The last four have two strings, of which one is the result of the functions inside, the other has one or two items.
Functions are drawn like any other that leaves the string no longer than `longest`. The end sign is scored, too. The
segment is a string; the targets are those that are not removed. Content: the whole prompt. Slices: `n_functions`,
`answer_length`.
Source: PCFG SET (Hupkes et al. 2020, arXiv 1908.08351), whose productivity test asks for more functions than were
trained, and which the NoPE study takes over. There both strings of a function may be results of others, and the string
that is removed may be the longer one; here functions form a chain, the removed string is never what they made, and the
bound on lengths is ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lightning_metatok.arrays import IntArray
from lightning_metatok.errors import UserError
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN
from lightning_metatok.tasks.task import Task

FUNCTIONS = (
    *("copy", "reverse", "shift", "swap_first_last", "echo"),
    *("repeat", "append", "prepend", "remove_first", "remove_second"),
)
"""In symbols the names with these numbers."""
ECHO, REPEAT, APPEND, PREPEND, REMOVE_FIRST, REMOVE_SECOND = range(4, 10)
MOST_OTHERS = 2
"""Items of the other string of a function, at most."""


@dataclass(frozen=True)
class Pcfg(Task):
    """Apply nested functions to a string."""

    name: ClassVar[str] = "pcfg"
    sketch: ClassVar[str] = "`L6 L1 <meta> a2 a9 <meta> ; <meta> a4 <meta> ?` → `a9 a2 a4 ]`"
    grows_with: ClassVar[str] = "functions"
    size_field: ClassVar[str] = "n_functions"
    default_size: ClassVar[tuple[int, int]] = (1, 8)
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        **{function: ("", f" {function}") for function in FUNCTIONS},
        "comma": (";", ","),
        "stop": ("?", "."),
        "question": ("", "\nQ: result\nA:"),
        "end": ("]", "."),
    }

    n_functions: tuple[int, int] | None = None
    """Functions around the string, [fewest, most]."""
    longest: int = 12
    """Items of a string and of every result on the way, at most."""
    pool: int | None = None
    """Different items that strings are made of; all there are when not given."""

    def check(self) -> None:
        """The pool is made of words that there are; in symbols names stand for functions."""
        self.check_integer("longest", 2, 1000)
        if self.pool is not None:
            self.check_integer("pool", 1, len(self.lexicon.everything), ", the items there are")
        if (there_are := len(self.lexicon.names)) < len(FUNCTIONS):
            expected = f"at least {len(FUNCTIONS)} names, the functions"
            raise UserError(f"data.task_options.symbols: {there_are} names; expected {expected}")
        super().check()

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts functions."""
        n, W, lexicon, word = draws.n, int(size_n.max()), self.lexicon, self.lexicon.phrase
        symbols, items = lexicon.rendering == "symbols", lexicon.everything
        function_words = lexicon.names if symbols else np.array([word[function] for function in FUNCTIONS])
        exists_nW, last = np.arange(W) < size_n[:, None], (self.pool or len(items)) - 1
        at_L, at_O = np.arange(self.longest), np.arange(MOST_OTHERS)
        string_nL = draws.integers("string", 0, last, self.longest)
        length_n = draws.integers("length", 1, min(4, self.longest))
        others_nWO = draws.integers("others", 0, last, W, MOST_OTHERS)
        n_others_nW = draws.integers("lengths of others", 1, MOST_OTHERS, W)
        function_nW = np.zeros((n, W), dtype=np.int64)
        result_nL, long_n = string_nL, length_n
        for w in range(W):  # from the inside
            lengths_nF = lengths_after(long_n, n_others_nW[:, w])
            keys_nF = draws.bits(f"function {w}", len(FUNCTIONS)) >> np.uint64(1)
            function_n = np.where(lengths_nF <= self.longest, keys_nF.astype(np.int64), -1).argmax(axis=1)
            function_nW[:, w] = function_n
            place_nL = places_after(function_n, long_n, n_others_nW[:, w], self.longest)
            made_nL = np.take_along_axis(np.concatenate([result_nL, others_nWO[:, w]], axis=1), place_nL, axis=1)
            result_nL = np.where(exists_nW[:, w, None], made_nL, result_nL)
            long_n = np.where(exists_nW[:, w], lengths_nF[np.arange(n), function_n], long_n)

        has_other_nW = exists_nW & (function_nW >= APPEND)
        is_other_nWO = has_other_nW[..., None] & (at_O < n_others_nW[..., None])
        slot_nW1 = np.zeros((n, W, 1), dtype=np.int64)
        other_words_nWX = np.concatenate(
            [slot_nW1 + OPEN, np.where(is_other_nWO, items[others_nWO], ABSENT), slot_nW1 + CLOSE],
            axis=2,
        )
        comma_nW1 = slot_nW1 + word["comma"]
        in_front_nW1 = (function_nW == REMOVE_FIRST)[..., None]
        before_nWX = np.where(in_front_nW1, np.concatenate([other_words_nWX, comma_nW1], axis=2), ABSENT)
        before_nWX = np.concatenate([function_words[function_nW][..., None], before_nWX], axis=2)
        kept_nW1 = np.isin(function_nW, (APPEND, PREPEND))[..., None]

        draft = Draft(n)
        draft.put(before_nWX[:, ::-1], where=exists_nW[:, ::-1, None])
        draft.put(OPEN, target=True)
        draft.put(items[string_nL], source=True, where=at_L < length_n[:, None])
        draft.put(CLOSE, target=True)
        draft.put(
            np.concatenate([comma_nW1, other_words_nWX], axis=2),
            source=kept_nW1 & np.isin(np.arange(MOST_OTHERS + 3), at_O + 2),
            target=kept_nW1,
            where=has_other_nW[..., None] & ~in_front_nW1,
        )
        draft.put(word["stop"])
        draft.end_body()
        draft.put(word["question"])
        draft.put(items[result_nL], answer=True, where=at_L < long_n[:, None])
        draft.put(word["end"], answer=True)
        draft.content(
            np.where(exists_nW, function_nW, ABSENT),
            np.where(at_L < length_n[:, None], string_nL, ABSENT),
            *(np.where(is_other_nWO[..., i], others_nWO[..., i], ABSENT) for i in at_O),
        )
        draft.slices |= {"n_functions": size_n, "answer_length": long_n}
        return draft


def lengths_after(long_n: IntArray, n_others_n: IntArray) -> IntArray:
    """How long a string is after each function, [n, functions]."""
    lengths_nF = np.repeat(long_n[:, None], len(FUNCTIONS), axis=1)
    lengths_nF[:, ECHO] += 1
    lengths_nF[:, REPEAT] *= 2
    lengths_nF[:, [APPEND, PREPEND]] += n_others_n[:, None]
    return lengths_nF


def places_after(function_n: IntArray, long_n: IntArray, n_others_n: IntArray, longest: int) -> IntArray:
    """Where each item of a result comes from, [n, longest]: below `longest` the string, behind that the other one."""
    at_nL = np.arange(longest) + np.zeros((len(long_n), 1), dtype=np.int64)
    long_n1, n_others_n1 = long_n[:, None], n_others_n[:, None]
    swapped_nL = np.where(at_nL == 0, long_n1 - 1, np.where(at_nL == long_n1 - 1, 0, at_nL))
    places = (
        *(at_nL, long_n1 - 1 - at_nL, (at_nL + 1) % long_n1, swapped_nL, np.minimum(at_nL, long_n1 - 1)),
        at_nL % long_n1,
        np.where(at_nL < long_n1, at_nL, longest + at_nL - long_n1),
        np.where(at_nL < n_others_n1, longest + at_nL, at_nL - n_others_n1),
        *(at_nL, at_nL),
    )
    # What stands behind the end of a result does not matter.
    return np.clip(np.stack(places)[function_n, np.arange(len(long_n))], 0, longest + MOST_OTHERS - 1)
