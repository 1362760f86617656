"""Reading prompts of named lists."""

import re

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
