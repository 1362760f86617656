"""Answers found by reading the prompt, as a person would: a second opinion that shares no code with the package.

`SOLVERS[task](prompt, rendering)` takes the text of a prompt up to an answer, without marks, and returns the answer to
its last question.
"""

import re
from collections.abc import Callable

Solver = Callable[[str, str], str]

NAME = r"[A-Z][a-z]+(?: \d+)?"


def parts(prompt: str, rendering: str, sign: str) -> tuple[str, str]:
    """The body of a prompt and its last question; `sign` starts a question in symbols."""
    start = f" {sign} " if rendering == "symbols" else "\nQ: "
    body, *questions = prompt.split(start)
    if rendering == "text":
        assert questions[-1].endswith("\nA:"), prompt
        return body, questions[-1].removesuffix("\nA:")
    return body, questions[-1]


def named_lists(body: str, rendering: str) -> dict[str, list[str]]:
    """The lists of list recall and segment counting by their names."""
    if rendering == "text":
        found = re.findall(rf" ({NAME}): ([a-z]+(?:, [a-z]+)*)\.", body)
        assert "".join(f" {name}: {items}." for name, items in found) == body, body
        return {name: items.split(", ") for name, items in found}
    lists: dict[str, list[str]] = {}
    for word in body.split():
        if word.startswith("L"):
            assert word not in lists, body
            name = word
            lists[name] = []
        else:
            lists[name].append(word)
    return lists


def solve_list_recall(prompt: str, rendering: str) -> str:
    """Item k of the list that is named."""
    body, question = parts(prompt, rendering, "?")
    pattern = r"what is item (?P<k>\d+) of (?P<name>.+)\?" if rendering == "text" else r"(?P<name>L\d+) (?P<k>\d+)"
    k, name = re.fullmatch(pattern, question).group("k", "name")
    return named_lists(body, rendering)[name][int(k) - 1]


def solve_segment_counting(prompt: str, rendering: str) -> str:
    """How often the item stands in the list that is named."""
    body, question = parts(prompt, rendering, "#")
    pattern = (
        r"how many (?P<item>[a-z]+) in (?P<name>.+)\?" if rendering == "text" else r"(?P<name>L\d+) (?P<item>a\d+)"
    )
    item, name = re.fullmatch(pattern, question).group("item", "name")
    return str(named_lists(body, rendering)[name].count(item))


def solve_parity(prompt: str, rendering: str) -> str:
    """Whether the ones before the label are odd in number."""
    body, question = parts(prompt, rendering, "?")
    if rendering == "text":
        label = re.fullmatch(r"parity before ([A-Z])\?", question).group(1)
        before, _ = re.fullmatch(r" Bits:((?: [01A-Z])+)\.", body).group(1).split(f" {label}")
        return str(before.count("1") % 2)
    words = body.split()
    return ("zero", "one")[words[: words.index(question)].count("one") % 2]


def solve_copying(prompt: str, rendering: str) -> str:
    """What stands in the brackets behind the name, with the closing bracket."""
    # The opening bracket of the answer is given.
    pattern = r"(.*)\nQ: copy (.*)\nA: \[" if rendering == "text" else r"(.*) \? (.*) \["
    body, name = re.fullmatch(pattern, prompt, re.DOTALL).groups()
    (span,) = re.findall(rf"(?:^| ){name} \[ ([^\[\]]*\])", body)
    return span


def operands(prompt: str, rendering: str, sign: str) -> tuple[int, int, int, int]:
    """Two numbers written digit by digit, and how many digits each has."""
    pattern = rf"([\d ]+){sign}([\d ]+)=" + (r"\nA:" if rendering == "text" else "")
    a, b = (found.replace(" ", "") for found in re.fullmatch(pattern, prompt).groups())
    return int(a), int(b), len(a), len(b)


def solve_addition(prompt: str, rendering: str) -> str:
    """The sum, a digit longer than the addends, its lowest digit first."""
    a, b, n, m = operands(prompt, rendering, r"\+" if rendering == "text" else r"\|")
    assert n == m
    return " ".join(str(a + b).zfill(n + 1)[::-1])


def solve_multiplication(prompt: str, rendering: str) -> str:
    """The product, as long as both factors together, its lowest digit first."""
    a, b, n, m = operands(prompt, rendering, r"\*" if rendering == "text" else "#")
    return " ".join(str(a * b).zfill(n + m)[::-1])


SOLVERS: dict[str, Solver] = {
    "addition": solve_addition,
    "multiplication": solve_multiplication,
    "list_recall": solve_list_recall,
    "segment_counting": solve_segment_counting,
    "parity": solve_parity,
    "copying": solve_copying,
}
