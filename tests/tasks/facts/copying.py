"""What stands in a span's brackets."""

import re

from tests.tasks.facts import Facts


def solve_copying(prompt: str, rendering: str) -> str:
    """What stands in the brackets behind the name, with the closing bracket."""
    # The opening bracket of the answer is given.
    pattern = r"(.*)\nQ: copy (.*)\nA: \[" if rendering == "text" else r"(.*) \? (.*) \["
    body, name = re.fullmatch(pattern, prompt, re.DOTALL).groups()
    (span,) = re.findall(rf"(?:^| ){name} \[ ([^\[\]]*\])", body)
    return span


FACTS = Facts(
    solve=solve_copying,
    few=(2000, {"pool": 12, "span_length": (2, 2)}, r"\[.*\](?=.*\?)"),
    n_marks=lambda placement, _, prompt: 2 if placement == "hint" else 2 * prompt.partition("?")[0].count("["),
    questions={
        "symbols": ("?", r"\? (?P<key>L\d+) \[ (?P<answer>\S+)"),
        "text": ("\nQ:", r"\nQ: copy (?P<key>[^\n]*)\nA: \[(?P<answer> \S+)"),
    },
    many={"n_spans": (1, 3), "n_words": (20, 40)},
    pairs={"n_words": (12, 20)},
)
