"""Planted bits and cycles, read from their text."""

import re

from tests.tasks.others import Known


def planted(prompt: str, rendering: str) -> str:
    bits = re.findall(r"\b[01]\b" if rendering == "text" else r"\b(?:zero|one)\b", prompt)
    odd = sum(bit in ("1", "one") for bit in bits) % 2
    return str(odd) if rendering == "text" else ("zero", "one")[odd]


def depo(prompt: str, rendering: str) -> str:
    if rendering == "text":
        body, question = prompt.split("\nQ: ")
        k, item = re.fullmatch(r"(\d+) after (.*)\nA:", question).groups()
        pairs = [pair.strip().split(": ") for pair in body.strip(",").split(",")]
    else:
        body, question = prompt.split(" ? ")
        k, item = question.split(" ", 1)
        pairs = [re.fullmatch(r"(\S+ \S+) (\S+ \S+)", p.strip()).groups() for p in body.strip(" ;").split(";")]
    follows = dict(pairs)
    assert len(follows) == len(pairs)
    for _ in range(int(k)):
        item = follows[item]
    return item


PLANTED_AND_DEPO = {
    "planted": Known(
        planted,
        {"n_items": (3, 3), "n_planted": 2, "pool": 4},
        ({"n_planted": 1}, {"n_planted": 8}),
        {"n_planted=0: expected an integer from 1": {"n_planted": 0}},
    ),
    "depo": Known(
        depo,
        {"n_items": (2, 2), "hops": (1, 1), "symbols": [8, 3, 4]},
        ({"hops": (2, 2)},),
        {r"hops=\[0, 2\]: expected two integers": {"hops": (0, 2)}},
    ),
}
