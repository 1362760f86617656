"""Statements in a long text."""

import re
from collections.abc import Mapping

from tests.tasks.facts import Facts


def solve_needle(prompt: str, rendering: str) -> str:
    """Find the statements about the key."""
    if rendering == "text":
        key = re.findall(r"\nQ: what (?:is|are) the special numbers? of (\w+)\?\nA:$", prompt)[0]
        return ", ".join(re.findall(rf" The special number of {key} is (\d \d \d \d)\.", prompt))
    key = prompt.split()[-1]
    return " ".join(re.findall(rf"\b{key} = (\d \d \d \d) ;", prompt))


def n_marks(placement: str, slices: Mapping[str, int], prompt: str) -> int:
    """Needles that are asked about; or all of them, and as many decoys, three at least."""
    needles = slices["n_values"] + slices["n_keys"] - 1
    return 2 * (slices["n_values"] if placement == "hint" else needles + max(needles, 3))


FACTS = Facts(
    solve=solve_needle,
    few=(8000, {"n_hay": (16, 16)}, r"\?.*"),
    n_marks=n_marks,
    questions={
        "symbols": ("?", r"\? (?P<key>L\d+) (?P<answer>\d)"),
        "text": ("\nQ:", r"\nQ: what [a-z ]* of (?P<key>[a-z]+)\?\nA:(?P<answer> \d)"),
    },
    many={"n_keys": 2, "n_values": 2},
    pairs={"n_hay": (40, 60)},
)
