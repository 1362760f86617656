"""Two numbers and their product."""

from tests.tasks.facts import Facts
from tests.tasks.facts.numbers import QUESTIONS, n_marks, operands


def solve_multiplication(prompt: str, rendering: str) -> str:
    """The product, as long as both factors together, its lowest digit first."""
    a, b, n, m = operands(prompt, rendering, r"\*" if rendering == "text" else "#")
    return " ".join(str(a * b).zfill(n + m)[::-1])


FACTS = Facts(
    solve=solve_multiplication,
    few=(2000, {"n_digits": (2, 2), "n_factor_digits": (1, 1)}, r"^[^=]*"),
    n_marks=n_marks,
    questions=QUESTIONS,
)
