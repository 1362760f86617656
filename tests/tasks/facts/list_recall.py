"""Which item stands where in a list."""

import re

from tests.tasks.facts import Facts
from tests.tasks.facts.lists import NAME, named_lists, parts


def solve_list_recall(prompt: str, rendering: str) -> str:
    """Item k of the list that is named."""
    body, question = parts(prompt, rendering, "?")
    pattern = r"what is item (?P<k>\d+) of (?P<name>.+)\?" if rendering == "text" else r"(?P<name>L\d+) (?P<k>\d+)"
    k, name = re.fullmatch(pattern, question).group("k", "name")
    return named_lists(body, rendering)[name][int(k) - 1]


FACTS = Facts(
    solve=solve_list_recall,
    few=(2000, {"n_lists": (1, 1), "list_length": (1, 2), "pool": 3, "n_queries": 2}, r"^[^?]*"),
    n_marks=lambda placement, slices, _: 2 if placement == "hint" else 2 * slices["n_lists"],
    questions={
        "symbols": ("?", r"\? (?P<key>L\d+) \d+ (?P<answer>a\d+)"),
        "text": ("\nQ:", rf"\nQ: what is item \d+ of (?P<key>{NAME})\?\nA:(?P<answer> [a-z]+)"),
    },
    many={"n_queries": 3},
    pairs={"n_lists": (2, 4)},
)
