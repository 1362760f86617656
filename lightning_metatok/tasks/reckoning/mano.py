"""Mano: the value of an arithmetic expression in prefix notation, modulo a prime, with nothing written in between.

    text      + * 7 3 - 2 20.⏎Q: modulo 23⏎A: 3        symbols  ; # 7 3 -> 2 20 ? 23 3

An expression of l operations has l + 1 numbers; its tree is any binary tree of that size, each as likely. Operations
are +, - and * (in symbols `;`, `->` and `#`). One segment, the expression, on all of which the answer depends: `hint`
and `every` put the same marks. Content: the expression. Slices: `n_operations`, `depth` (of the tree).
Source: Mano of the physics of language models (Allen-Zhu 2025, part 4.1), where l is written in front and the modulus
is 23. How its trees are drawn is not known to us; these ones, the modulus in the question and the wording are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN
from lightning_metatok.tasks.task import Task

OPERATIONS = ("plus", "minus", "times")


@dataclass(frozen=True)
class Mano(Task):
    """Evaluate an arithmetic expression modulo a prime."""

    name: ClassVar[str] = "mano"
    sketch: ClassVar[str] = "`<meta> ; # 7 3 -> 2 20 <meta> ? 23` → `3`"
    grows_with: ClassVar[str] = "operations"
    size_field: ClassVar[str] = "n_operations"
    default_size: ClassVar[tuple[int, int]] = (1, 8)
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "plus": (";", " +"),
        "minus": ("->", " -"),
        "times": ("#", " *"),
        "stop": ("?", "."),
        "question": ("", "\nQ: modulo"),
        "answer": ("", "\nA:"),
    }

    n_operations: tuple[int, int] | None = None
    """Operations of the expression, [fewest, most]."""
    modulus: int = 23
    """The prime that the value is taken modulo; numbers of the expression are smaller."""

    def check(self) -> None:
        """The prime is a number that there is."""
        largest = len(self.lexicon.numbers) - 1
        self.check_integer("modulus", 2, largest, ", the largest number there is")
        prime = all(self.modulus % factor for factor in range(2, self.modulus))
        self.expect(prime, "modulus", f"a prime from 2 to {largest}")
        super().check()

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts operations."""
        n, W, word, numbers = draws.n, 2 * int(size_n.max()) + 1, self.lexicon.phrase, self.lexicon.numbers
        exists_nW = np.arange(W) < 2 * size_n[:, None] + 1
        is_operation_nW = shapes(draws, size_n, exists_nW)
        operation_nW = draws.integers("operations", 0, len(OPERATIONS) - 1, W)
        number_nW = draws.integers("numbers", 0, self.modulus - 1, W)
        value_n, depth_n = evaluated(is_operation_nW, operation_nW, number_nW, exists_nW, self.modulus)
        signs = np.array([word[operation] for operation in OPERATIONS])

        draft = Draft(n)
        draft.put(OPEN, target=True)
        draft.put(np.where(is_operation_nW, signs[operation_nW], numbers[number_nW]), source=True, where=exists_nW)
        draft.put(CLOSE, target=True)
        draft.put(word["stop"])
        draft.end_body()
        draft.put(word["question"])
        draft.put(numbers[self.modulus])
        draft.put(word["answer"])
        draft.put(numbers[value_n], answer=True)
        code_nW = np.where(is_operation_nW, self.modulus + operation_nW, number_nW)
        draft.content(np.where(exists_nW, code_nW, ABSENT), np.full(n, self.modulus))
        draft.slices |= {"n_operations": size_n, "depth": depth_n}
        return draft


def shapes(draws: Draws, size_n: IntArray, exists_nW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which words of an expression are operations, bool [n, W], every tree as likely.

    Of all turns of `size_n` operations and one number more in random order, exactly one is an expression: it begins
    behind the place where operations minus numbers, counted from the start, are fewest for the first time.
    """
    order_nW = draws.shuffle("tree", exists_nW)
    drawn_nW = np.zeros(exists_nW.shape, dtype=bool)
    np.put_along_axis(drawn_nW, order_nW, np.arange(exists_nW.shape[1]) < size_n[:, None], axis=1)
    open_nW = np.cumsum(np.where(drawn_nW, 1, -1), axis=1)
    first_n = np.where(exists_nW, open_nW, exists_nW.shape[1]).argmin(axis=1) + 1
    from_n1 = first_n[:, None] + np.arange(exists_nW.shape[1])
    return np.take_along_axis(drawn_nW, from_n1 % (2 * size_n[:, None] + 1), axis=1) & exists_nW


def evaluated(
    is_operation_nW: NDArray[np.bool_],
    operation_nW: IntArray,
    number_nW: IntArray,
    exists_nW: NDArray[np.bool_],
    modulus: int,
) -> tuple[IntArray, IntArray]:
    """Return values and depths of the expressions, [n] each, read from their ends."""
    n, W = is_operation_nW.shape
    rows = np.arange(n)
    stack, depth = (np.zeros((n, W + 2), dtype=np.int64) for _ in range(2))
    top_n = np.ones(n, dtype=np.int64)  # two cells below the first are never meant, only read
    for w in range(W - 1, -1, -1):
        operates_n, there_n = is_operation_nW[:, w], exists_nW[:, w]
        left_n, right_n = stack[rows, top_n], stack[rows, top_n - 1]
        results = np.stack([left_n + right_n, left_n - right_n, left_n * right_n])
        result_n = results[operation_nW[:, w], rows] % modulus
        deeper_n = np.maximum(depth[rows, top_n], depth[rows, top_n - 1]) + 1
        top_n = top_n + np.where(there_n, np.where(operates_n, -1, 1), 0)
        stack[rows, top_n] = np.where(there_n, np.where(operates_n, result_n, number_nW[:, w]), stack[rows, top_n])
        depth[rows, top_n] = np.where(there_n, np.where(operates_n, deeper_n, 0), depth[rows, top_n])
    return stack[rows, top_n], depth[rows, top_n]
