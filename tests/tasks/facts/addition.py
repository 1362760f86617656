"""Two numbers and their sum."""

from tests.tasks.facts import Facts
from tests.tasks.facts.numbers import QUESTIONS, n_marks, operands


def solve_addition(prompt: str, rendering: str) -> str:
    """The sum, a digit longer than the addends, its lowest digit first."""
    a, b, n, m = operands(prompt, rendering, r"\+" if rendering == "text" else r"\|")
    assert n == m
    return " ".join(str(a + b).zfill(n + 1)[::-1])


FACTS = Facts(
    solve=solve_addition,
    few=(2000, {"n_digits": (2, 2)}, r"^[^=]*"),
    n_marks=n_marks,
    questions=QUESTIONS,
)
