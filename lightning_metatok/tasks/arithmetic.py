"""Addition and multiplication of numbers digit by digit, the answer reversed: its first digit is the lowest.

    addition         text  6 5 3 + 0 4 9 =⏎A: 2 0 7 0        symbols  6 5 3 | 0 4 9 = 2 0 7 0
    multiplication   text  6 5 3 * 4 9 =⏎A: 7 9 9 1 3        symbols  6 5 3 # 4 9 = 7 9 9 1 3

Addends are filled up with zeros to the same length n, one of them at least has n digits, and the sum is written with
n + 1; a product is written with as many digits as its factors have together. A digit is a word of its own, so numbers
may be as long as you like. Segments are the two numbers, both of which the answer depends on: `hint` and `every` put
the same marks. Content: both numbers. Slices: `n_digits` (n; of the first factor).

Coupled position ids (Cho et al. 2024, arXiv 2405.20671; their code with start 0 and reversed answers): digits of the
same place have the same id, the lowest of them the smallest.

    addition           6 5 3 + 0 4 9 = 2 0 7 0         multiplication    6 5 3 * 4 9 = 7 9 9 1 3
                       3 2 1 0 3 2 1 0 1 2 3 4                           2 3 4 5 3 4 5 4 3 2 1 0

A multiplication counts down in the paper's code: with e = len(a) + len(b) the digits of a number and the sign behind it
end at e, and the answer starts at e - 1. Text has further words, which have the id of the sign before them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.arrays import IntArray
from lightning_metatok.errors import UserError
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN
from lightning_metatok.tasks.task import Task

BASE = 10


@dataclass(frozen=True)
class Arithmetic(Task):
    """What the two operations have in common: numbers of digits, right-aligned in arrays."""

    size_field: ClassVar[str] = "n_digits"
    default_size: ClassVar[tuple[int, int]] = (1, 10)

    n_digits: tuple[int, int] | None = None
    """Digits of the (first) number, [fewest, most]."""

    def check(self) -> None:
        """Ten symbols are digits."""
        if (there_are := len(self.lexicon.numbers)) < BASE:
            raise UserError(f"data.task_options.symbols: {there_are} numbers; expected at least {BASE}, the digits")
        super().check()

    def put_number(
        self,
        draft: Draft,
        digits_nD: IntArray,
        exists_nD: NDArray[np.bool_],
        ids_nD: IntArray,
    ) -> None:
        """Write a number that is a segment, marks before and behind it; columns that do not exist leave no trace."""
        draft.put(OPEN, target=True, ids=0)
        draft.put(np.where(exists_nD, self.lexicon.numbers[digits_nD], ABSENT), source=True, ids=ids_nD)
        draft.put(CLOSE, target=True, ids=0)

    def put_answer(
        self,
        draft: Draft,
        places_nD: IntArray,
        exists_nD: NDArray[np.bool_],
        ids_nD: IntArray,
    ) -> None:
        """Write digits from the lowest place on."""
        words_nD = np.where(exists_nD, self.lexicon.numbers[places_nD], ABSENT)
        draft.put(words_nD, answer=True, ids=ids_nD)


@dataclass(frozen=True)
class Addition(Arithmetic):
    """Add two numbers."""

    name: ClassVar[str] = "addition"
    sketch: ClassVar[str] = "`<meta> 6 5 3 <meta> | <meta> 0 4 9 <meta> =` → `2 0 7 0`, the lowest digit first"
    grows_with: ClassVar[str] = "digits"
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "plus": ("|", " +"),
        "equals": ("=", " ="),
        "answer": ("", "\nA:"),
    }

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts digits."""
        n, D, word = draws.n, int(size_n.max()), self.lexicon.phrase
        at_D = np.arange(D)
        # Columns by place, the lowest first. One number has all digits, the other as many as are drawn.
        exists_nD = at_D < size_n[:, None]
        lengths_n2 = np.stack([size_n, draws.integers("lengths", 1, size_n)], axis=1)
        swapped_n1 = draws.integers("order", 0, 1)[:, None] == 1
        lengths_n2 = np.where(swapped_n1, lengths_n2[:, ::-1], lengths_n2)
        # Apart: what stands at a place must not depend on how long the other prompts of the batch are.
        digits_n2D = np.stack([draws.integers(f"digits {number}", 0, BASE - 1, D) for number in range(2)], axis=1)
        leading_n2D = (at_D == lengths_n2[..., None] - 1) & (lengths_n2[..., None] > 1)
        digits_n2D = np.where(leading_n2D, draws.integers("leading", 1, BASE - 1, 2, 1), digits_n2D)
        digits_n2D = np.where(at_D < lengths_n2[..., None], digits_n2D, 0)
        sum_nE = carried(np.pad(digits_n2D.sum(axis=1), ((0, 0), (0, 1))))

        draft, ids_D = Draft(n), at_D + 1
        for number, sign in enumerate(("plus", "equals")):
            self.put_number(draft, digits_n2D[:, number, ::-1], exists_nD[:, ::-1], ids_D[::-1])
            draft.put(word[sign], ids=0)
        draft.end_body()
        draft.put(word["answer"], ids=0)
        self.put_answer(draft, sum_nE, np.arange(D + 1) <= size_n[:, None], np.arange(D + 1) + 1)
        for number in range(2):
            draft.content(np.where(exists_nD, digits_n2D[:, number], ABSENT))
        draft.slices |= {"n_digits": size_n}
        return draft


@dataclass(frozen=True)
class Multiplication(Arithmetic):
    """Multiply two numbers."""

    name: ClassVar[str] = "multiplication"
    sketch: ClassVar[str] = "`<meta> 6 5 3 <meta> # <meta> 4 9 <meta> =` → `7 9 9 1 3`"
    grows_with: ClassVar[str] = "digits"
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "times": ("#", " *"),
        "equals": ("=", " ="),
        "answer": ("", "\nA:"),
    }

    n_factor_digits: tuple[int, int] = (2, 2)
    """Digits of the second factor, [fewest, most]."""

    def check(self) -> None:
        """Both factors have digits."""
        self.check_range("n_factor_digits", 1, 1000)
        super().check()

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts digits of the first factor."""
        n, word = draws.n, self.lexicon.phrase
        lengths = [size_n, draws.integers("lengths", *self.n_factor_digits)]
        numbers, exist = [], []
        for number, length_n in enumerate(lengths):
            at_D = np.arange(int(length_n.max()))
            digits_nD = draws.integers(f"digits {number}", 0, BASE - 1, len(at_D))
            leading_nD = (at_D == length_n[:, None] - 1) & (length_n[:, None] > 1)
            digits_nD = np.where(leading_nD, draws.integers(f"leading {number}", 1, BASE - 1, 1), digits_nD)
            exist.append(at_D < length_n[:, None])
            numbers.append(np.where(exist[-1], digits_nD, 0))
        a_nD, b_nF = numbers
        product_nP = np.zeros((n, a_nD.shape[1] + b_nF.shape[1]), dtype=np.int64)
        for place in range(b_nF.shape[1]):
            product_nP[:, place : place + a_nD.shape[1]] += a_nD * b_nF[:, place, None]
        product_nP = carried(product_nP)

        draft, total_n1 = Draft(n), (lengths[0] + lengths[1])[:, None]
        for digits_nD, exists_nD, sign in zip(numbers, exist, ("times", "equals"), strict=True):
            # The lowest digit has e - 1, the sign behind it e.
            ids_nD = total_n1 - 1 - np.arange(digits_nD.shape[1])
            self.put_number(draft, digits_nD[:, ::-1], exists_nD[:, ::-1], ids_nD[:, ::-1])
            draft.put(word[sign], ids=total_n1[:, 0])
        draft.end_body()
        draft.put(word["answer"], ids=total_n1[:, 0])
        at_P = np.arange(product_nP.shape[1])
        self.put_answer(draft, product_nP, at_P < total_n1, total_n1 - 1 - at_P)
        for digits_nD, exists_nD in zip(numbers, exist, strict=True):
            draft.content(np.where(exists_nD, digits_nD, ABSENT))
        draft.slices |= {"n_digits": size_n}
        return draft


def carried(places_nD: IntArray) -> IntArray:
    """Return digits below 10, the lowest first, of the number whose places are given, however large these are."""
    digits_nD = np.empty_like(places_nD)
    carry_n = np.zeros(len(places_nD), dtype=np.int64)
    for place in range(places_nD.shape[1]):
        carry_n, digits_nD[:, place] = np.divmod(places_nD[:, place] + carry_n, BASE)
    assert not carry_n.any(), "one place too few"
    return digits_nD
