"""Solvers that read a prompt as a person would: from its text alone, without the package.

Each takes the text up to an answer, without meta-tokens, and the rendering; it returns the answer's text.
"""

import re
from collections.abc import Callable


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


def solve_needle(prompt: str, rendering: str) -> str:
    """Find the statements about the key."""
    if rendering == "text":
        key = re.findall(r"\nQ: what (?:is|are) the special numbers? of (\w+)\?\nA:$", prompt)[0]
        return ", ".join(re.findall(rf" The special number of {key} is (\d \d \d \d)\.", prompt))
    key = prompt.split()[-1]
    return " ".join(re.findall(rf"\b{key} = (\d \d \d \d) ;", prompt))


def solve_variable_tracking(prompt: str, rendering: str) -> str:
    """Run the assignments, one after the other."""
    program, question = prompt.split("\nQ: what is " if rendering == "text" else " ? ")
    values: dict[str, str] = {}
    for assignment in program.strip(" ;").split(";"):
        variable, value = (side.strip() for side in assignment.split("="))
        assert variable not in values, "variables are different"
        values[variable] = value if value.isdigit() else values[value]
    return values[question.removesuffix("?\nA:").strip()]


SOLVERS: dict[str, Callable[[str, str], str]] = {
    "multi_query_recall": solve_multi_query_recall,
    "needle": solve_needle,
    "variable_tracking": solve_variable_tracking,
}
