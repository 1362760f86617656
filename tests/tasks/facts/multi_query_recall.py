"""The values of keys."""

import re

from tests.tasks.facts import Facts


def solve_multi_query_recall(prompt: str, rendering: str) -> str:
    """Look up the key that was asked last."""
    if rendering == "text":
        body, *questions = prompt.split("\nQ:")
        pairs = re.findall(r" ([^:,]+): (\d+)", body)
        key = questions[-1].removesuffix("\nA:")
    else:
        body, asked = prompt.split("?")
        pairs = re.findall(r"([^0-9 ]\S*(?: [^0-9 ]\S*)?) (\d+)", body)
        key = re.sub(r".* \d+ ", "", asked)
    values: dict[str, str] = dict(pairs)
    assert len(values) == len(pairs), "keys are different"
    return values[key.strip()]


FACTS = Facts(
    solve=solve_multi_query_recall,
    few=(5000, {"n_pairs": (1, 1), "n_queries": 1}, r"\?.*"),
    n_marks=lambda placement, slices, _: 2 * slices["n_queries" if placement == "hint" else "n_pairs"],
    questions={
        "symbols": ("?", r" (?P<key>[aL]\d+(?: [aL]\d+)?) (?P<answer>\d+)"),
        "text": ("\nQ:", r"\nQ: (?P<key>[^\n]*)\nA:(?P<answer> \d+)"),
    },
    pairs={"n_pairs": (3, 5), "n_queries": 1},
)
