"""Pairs of keys and keys that are bound again, read from their text."""

import re

from tests.tasks.others import Known


def bindings(prompt: str, rendering: str) -> tuple[list[tuple[str, str]], str]:
    """Keys of two words with values, in order, and the key of the last question."""
    if rendering == "text":
        body, *asked = prompt.split("\nQ: ")
        pairs = [re.fullmatch(r" ?(.+): (\d+)", pair).groups() for pair in body.removesuffix(".").split(",")]
        return pairs, asked[-1].removesuffix("\nA:")
    body, *asked = prompt.split(" ? ")
    return re.findall(r"(L\d+ a\d+) (\d+)", body), asked[-1]


def compositional(prompt: str, rendering: str) -> str:
    pairs, key = bindings(prompt, rendering)
    grid = {tuple(key.split()): value for key, value in pairs}
    firsts, seconds = ({key[i] for key in grid} for i in (0, 1))
    assert len(grid) == len(pairs) == len(firsts) * len(seconds)
    return grid[tuple(key.split())]


def forgetting(prompt: str, rendering: str) -> str:
    pairs, key = bindings(prompt, rendering)
    values = [value for other, value in pairs if other == key]
    assert len(set(values)) == len(values) <= 2
    return values[-1]


RECALL = {
    "compositional_recall": Known(
        compositional,
        {"n_rows": (2, 2), "n_columns": 2, "n_queries": 1, "symbols": [4, 2, 2]},
        ({"n_columns": 2, "n_queries": 1}, {"n_queries": 9}),
        {
            "n_columns=1: expected an integer from 2": {"n_columns": 1},
            "n_queries=0: expected an integer from 1": {"n_queries": 0},
        },
        share=0.05,
    ),
    "forgetting_recall": Known(
        forgetting,
        {"n_keys": (2, 2), "n_queries": 1, "symbols": [4, 2, 2]},
        ({"updates": 1, "n_queries": 4}, {"updates": 0.01, "n_queries": 3}),
        {"updates=1.5: expected a number above 0": {"updates": 1.5}},
        share=0.05,
    ),
}
