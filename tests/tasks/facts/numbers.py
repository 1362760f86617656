"""Reading two numbers digit by digit; their questions ask about no key."""

import re

QUESTIONS = {"symbols": ("=", r"= (?P<answer>\d)"), "text": ("=", r"=\nA:(?P<answer> \d)")}


def n_marks(placement: str, slices: object, prompt: str) -> int:
    """Two around each number, whatever is asked."""
    return 4


def operands(prompt: str, rendering: str, sign: str) -> tuple[int, int, int, int]:
    """Two numbers written digit by digit, and how many digits each has."""
    pattern = rf"([\d ]+){sign}([\d ]+)=" + (r"\nA:" if rendering == "text" else "")
    a, b = (found.replace(" ", "") for found in re.fullmatch(pattern, prompt).groups())
    return int(a), int(b), len(a), len(b)
