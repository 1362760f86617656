"""Strings, read from their text."""

import re
from collections.abc import Callable

from tests.tasks.others import Known


def rewriting(rewrite: Callable[[list[str]], list[str]]) -> Callable[[str, str], str]:
    """A reader of a string and its question; `rewrite` says what the answer is."""

    def solve(prompt: str, rendering: str) -> str:
        pattern = r"([\w ]+)\.\nQ: [a-z ]+\nA:" if rendering == "text" else r"([\w ]+) \?"
        items = re.fullmatch(pattern, prompt).group(1).split()
        return " ".join(rewrite(items)) + ("." if rendering == "text" else " ]")

    return solve


def without_repetitions(items: list[str]) -> list[str]:
    return [item for i, item in enumerate(items) if i == 0 or items[i - 1] != item]


def number(item: str) -> int:
    """Kinds of items can be read in symbols alone: a word does not tell its number."""
    return int(item.removeprefix("a"))


def recopied(items: list[str]) -> list[str]:
    return [item for item in items for _ in range((1, 3, 5)[number(item) % 3])]


def recopy(prompt: str, rendering: str) -> str:
    if rendering == "text":  # read as symbols, by the order that words stand in
        from lightning_metatok.tasks.words import CATEGORIES

        words = [word for members in CATEGORIES.values() for word in members]
        body = prompt.partition(".")[0].split()
        return " ".join(words[number(i)] for i in recopied([f"a{words.index(word)}" for word in body])) + "."
    return rewriting(recopied)(prompt, rendering)


def count(prompt: str, rendering: str) -> str:
    pattern = r"(.*)\.\nQ: how many ([a-z]+)\?\nA:" if rendering == "text" else r"(.*) \? (\w+)"
    body, item = re.fullmatch(pattern, prompt).groups()
    return str(body.split().count(item))


POOL = {"pool": {0: "an integer from"}}
STRINGS = {
    "repeating": Known(rewriting(list), {"n_items": (2, 2), "pool": 12}),
    "reverse": Known(rewriting(lambda items: items[::-1]), {"n_items": (2, 2), "pool": 12}),
    "sort": Known(rewriting(lambda items: sorted(items, key=int)), {"n_items": (2, 2), "pool": 12}),
    "recopy": Known(recopy, {"n_items": (2, 2), "pool": 12}, wrong={"inverse=1: expected true": {"inverse": 1}}),
    "dedupe": Known(rewriting(without_repetitions), {"n_items": (3, 3), "pool": 6}),
    "position_retrieval": Known(rewriting(lambda items: [items[int(i)] for i in items]), {"n_items": (4, 4)}),
    "count": Known(
        count,
        {"n_items": (2, 2), "pool": 8},
        ({"pool": 3, "most": 5},),
        {r"most=0: expected an integer from 1 to 127": {"most": 0}},
    ),
}
