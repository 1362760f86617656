"""The bits before a label."""

import re

from tests.tasks.facts import Facts
from tests.tasks.facts.lists import parts


def solve_parity(prompt: str, rendering: str) -> str:
    """Whether the ones before the label are odd in number."""
    body, question = parts(prompt, rendering, "?")
    if rendering == "text":
        label = re.fullmatch(r"parity before ([A-Z])\?", question).group(1)
        before, _ = re.fullmatch(r" Bits:((?: [01A-Z])+)\.", body).group(1).split(f" {label}")
        return str(before.count("1") % 2)
    words = body.split()
    return ("zero", "one")[words[: words.index(question)].count("one") % 2]


FACTS = Facts(
    solve=solve_parity,
    few=(2000, {"n_bits": (8, 8)}, r"(zero|one)(?=.*\?)"),
    n_marks=lambda placement, _, prompt: (
        1 if placement == "hint" else len(re.findall(r"\bL\d+", prompt.partition("?")[0]))
    ),
    questions={
        "symbols": ("?", r"\? (?P<key>L\d+) (?P<answer>zero|one)"),
        "text": ("\nQ:", r"\nQ: parity before (?P<key>[A-Z])\?\nA:(?P<answer> [01])"),
    },
    many={"n_labels": (1, 4)},
    pairs={"n_bits": (6, 10)},
)
