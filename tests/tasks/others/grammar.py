"""Commands and functions of strings, read from their text."""

import re

from tests.tasks.others import Known

WORDS = [
    *("turn", "jump", "walk", "look", "run", "left", "right"),
    *("opposite", "around", "twice", "thrice", "after", "and"),
]
ACTIONS = ["-", "JUMP", "WALK", "LOOK", "RUN", "LTURN", "RTURN"]
FUNCTIONS = [
    *("copy", "reverse", "shift", "swap_first_last", "echo"),
    *("repeat", "append", "prepend", "remove_first", "remove_second"),
]


def phrase(words: list[str]) -> list[str]:
    if words[-1] in ("twice", "thrice"):
        return phrase(words[:-1]) * (2 if words[-1] == "twice" else 3)
    verb, *where = words
    does = [] if verb == "turn" else [verb.upper()]
    if not where:
        return does
    turn = [f"{where[-1][0].upper()}TURN"]
    if where[0] == "around":
        return (turn + does) * 4
    return turn * len(where) + does


def sentence(words: list[str]) -> list[str]:
    for connective in ("and", "after"):
        if connective in words:
            at = words.index(connective)
            first, second = phrase(words[:at]), phrase(words[at + 1 :])
            return first + second if connective == "and" else second + first
    return phrase(words)


def scan(prompt: str, rendering: str) -> str:
    if rendering == "text":
        body = re.fullmatch(r" (.+)\.\nQ: actions\nA:", prompt).group(1)
        return " ".join(action for part in body.split(",") for action in sentence(part.split())) + "."
    body = re.sub(r"L(\d+)", lambda name: WORDS[int(name.group(1))], prompt.removesuffix(" ?"))
    actions = [action for part in body.split(";") for action in sentence(part.split())]
    return " ".join([*(f"a{ACTIONS.index(action)}" for action in actions), "]"])


def edited(words: list[str]) -> list[str]:
    """What an expression in prefix notation comes to; read from the front, it takes its words out of the list."""
    if words[0] not in FUNCTIONS:
        string = []
        while words and words[0] != ",":
            string.append(words.pop(0))
        return string
    function = words.pop(0)
    x = edited(words)
    if function in ("append", "prepend", "remove_first", "remove_second"):
        assert words.pop(0) == ","
        y = edited(words)
        return {"append": x + y, "prepend": y + x, "remove_first": y, "remove_second": x}[function]
    if function == "swap_first_last":
        return x if len(x) == 1 else [x[-1], *x[1:-1], x[0]]
    return {"copy": x, "reverse": x[::-1], "shift": x[1:] + x[:1], "echo": x + x[-1:], "repeat": x + x}[function]


def pcfg(prompt: str, rendering: str) -> str:
    if rendering == "text":
        body = re.fullmatch(r" (.+)\.\nQ: result\nA:", prompt).group(1).replace(",", " ,")
    else:
        body = re.sub(r"L(\d+)", lambda name: FUNCTIONS[int(name.group(1))], prompt.removesuffix(" ?"))
        body = body.replace(";", ",")
    words = body.split()
    result = edited(words)
    assert not words
    return " ".join(result) + ("." if rendering == "text" else " ]")


GRAMMAR = {
    "scan": Known(
        scan,
        {"n_actions": (1, 2)},
        ({"n_actions": (48, 48)},),
        {"symbols: 2 names and 2 items; expected at least 13 names": {"symbols": [2, 2, 2]}},
        share=0.1,
    ),
    "pcfg": Known(
        pcfg,
        {"n_functions": (1, 1), "pool": 2, "longest": 2},
        ({"longest": 2, "pool": 3}, {"longest": 40, "n_functions": (16, 16)}),
        {
            "longest=1: expected an integer from 2": {"longest": 1},
            "symbols: 2 names; expected at least 10 names": {"symbols": [2, 2, 2]},
        },
        share=0.05,
    ),
}
