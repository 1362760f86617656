"""How often an item stands in a list."""

import re

from tests.tasks.facts import Facts
from tests.tasks.facts.lists import NAME, named_lists, parts


def solve_segment_counting(prompt: str, rendering: str) -> str:
    """How often the item stands in the list that is named."""
    body, question = parts(prompt, rendering, "#")
    pattern = (
        r"how many (?P<item>[a-z]+) in (?P<name>.+)\?" if rendering == "text" else r"(?P<name>L\d+) (?P<item>a\d+)"
    )
    item, name = re.fullmatch(pattern, question).group("item", "name")
    return str(named_lists(body, rendering)[name].count(item))


FACTS = Facts(
    solve=solve_segment_counting,
    few=(2000, {"n_lists": (1, 1), "list_length": (1, 3), "pool": 2, "distinct": 2}, r"^[^#]*"),
    n_marks=lambda placement, slices, _: 2 if placement == "hint" else 2 * slices["n_lists"],
    questions={
        "symbols": ("#", r"# (?P<key>L\d+) a\d+ (?P<answer>\d+)"),
        "text": ("\nQ:", rf"\nQ: how many [a-z]+ in (?P<key>{NAME})\?\nA:(?P<answer> \d+)"),
    },
    many={"n_queries": 2},
    pairs={"n_lists": (2, 3)},
)
