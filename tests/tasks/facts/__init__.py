"""What tests know about each task, a file a task: a second opinion that shares no code with the package.

A test that holds for every task asks `facts(name)`; a new task brings one new file here, with its `FACTS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Facts:
    """One task.

    Attributes:
        solve: (text of a prompt up to an answer, without marks, rendering) -> the answer to its last question, found by
            reading the prompt as a person would.
        few: so many examples with so few contents that the same ones come again, the options that do this, and a
            pattern for where the content stands in a prompt.
        n_marks: (placement, slices, prompt) -> marks of the placements hint and every.
        questions: by rendering, what the questions begin with, and a pattern of one of them with the group `answer`
            and, where it asks about a key, `key`.
        many: options that give prompts several segments, where one is the default.
        pairs: options for pairs of prompts; None where the task gives none.
    """

    solve: Callable[[str, str], str]
    few: tuple[int, Mapping[str, Any], str]
    n_marks: Callable[[str, Mapping[str, int], str], int]
    questions: Mapping[str, tuple[str, str]]
    many: Mapping[str, Any] = field(default_factory=dict)
    pairs: Mapping[str, Any] | None = None


def facts(name: str) -> Facts:
    """What is known about the task `name`."""
    found = import_module(f"{__name__}.{name}").FACTS
    assert isinstance(found, Facts)
    return found
