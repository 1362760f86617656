"""Polynomial: the value of a polynomial at x, modulo a prime.

    text      3 x^ 2 + 5 x^ 0 + 9 x^ 3.⏎Q: x = 4 modulo 11⏎A: 2        symbols  3 # 2 ; 5 # 0 ; 9 # 3 ? 4 = 11 2

A term is a coefficient and the degree of x; a degree may come several times. The segment is a term; the targets are all
of them, on which the answer depends: `hint` and `every` put the same marks. Content: the terms in their order, x and
the prime. Slices: `n_terms`, `modulus`.
Source: the polynomials of the NoPE study (Kazemnejad et al. 2023, arXiv 2305.19466), whose terms have coefficients from
-3 to 3, degrees from 0 to 3, x from -2 to 2, and the value modulo 10. Coefficients from 0 on and x from 1 on, both
below a prime, are ours: so every value is as likely as any other. The wording is ours, too.
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

MOST_DEGREES = 16


@dataclass(frozen=True)
class Polynomial(Task):
    """Evaluate a polynomial modulo a prime."""

    name: ClassVar[str] = "polynomial"
    sketch: ClassVar[str] = "`<meta> 3 # 2 <meta> ; <meta> 5 # 0 <meta> ? 4 = 11` → `9`"
    grows_with: ClassVar[str] = "terms"
    size_field: ClassVar[str] = "n_terms"
    default_size: ClassVar[tuple[int, int]] = (2, 10)
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "power": ("#", " x^"),
        "plus": (";", " +"),
        "stop": ("?", "."),
        "question": ("", "\nQ: x ="),
        "modulo": ("=", " modulo"),
        "answer": ("", "\nA:"),
    }

    n_terms: tuple[int, int] | None = None
    """Terms of the polynomial, [fewest, most]."""
    modulus: int = 11
    """The prime that values are taken modulo; coefficients and x are smaller."""
    max_degree: int = 3
    """The largest degree of a term."""

    def check(self) -> None:
        """The prime and the degrees are numbers that there are."""
        largest = len(self.lexicon.numbers) - 1
        self.check_integer("modulus", 2, largest, ", the largest number there is")
        prime = all(self.modulus % factor for factor in range(2, self.modulus))
        self.expect(prime, "modulus", f"a prime from 2 to {largest}")
        self.check_integer("max_degree", 0, min(MOST_DEGREES, largest))
        super().check()

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts terms."""
        n, W, word, numbers = draws.n, int(size_n.max()), self.lexicon.phrase, self.lexicon.numbers
        exists_nW = np.arange(W) < size_n[:, None]
        coefficient_nW = draws.integers("coefficients", 0, self.modulus - 1, W)
        degree_nW = draws.integers("degrees", 0, self.max_degree, W)
        x_n = draws.integers("x", 1, self.modulus - 1)
        power_nD = np.ones((n, self.max_degree + 1), dtype=np.int64)
        for degree in range(self.max_degree):
            power_nD[:, degree + 1] = power_nD[:, degree] * x_n % self.modulus
        term_nW = coefficient_nW * np.take_along_axis(power_nD, degree_nW, axis=1)
        value_n = (term_nW * exists_nW).sum(axis=1) % self.modulus

        draft = Draft(n)
        opens, power, closes = (np.full((n, W), w) for w in (OPEN, word["power"], CLOSE))
        plus_nW = np.where(np.arange(W) > 0, word["plus"], ABSENT) + np.zeros((n, 1), dtype=np.int64)
        draft.put(
            np.stack([plus_nW, opens, numbers[coefficient_nW], power, numbers[degree_nW], closes], axis=2),
            source=np.isin(np.arange(6), (2, 4)),
            target=True,
            where=exists_nW[..., None],
        )
        draft.put(word["stop"])
        draft.end_body()
        draft.put(word["question"])
        draft.put(numbers[x_n])
        draft.put(word["modulo"])
        draft.put(numbers[self.modulus])
        draft.put(word["answer"])
        draft.put(numbers[value_n], answer=True)
        modulus_n = np.full(n, self.modulus)
        terms = (np.where(exists_nW, of_nW, ABSENT) for of_nW in (coefficient_nW, degree_nW))
        draft.content(*terms, x_n, modulus_n)
        draft.slices |= {"n_terms": size_n, "modulus": modulus_n}
        return draft
