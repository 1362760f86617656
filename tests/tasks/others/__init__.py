"""What tests know about tasks of other systems, a file a family: readers that share no code with the package."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Known:
    """One task.

    Attributes:
        solve: (text of a prompt up to its last answer, without marks, rendering) -> the answer.
        few: options with so few contents that the same ones come again.
        more: further sets of options whose answers the solver finds as well.
        wrong: options that cannot work, each with the beginning of its refusal.
        share: no answer is that of a larger share of prompts; 1 where nothing is said.
    """

    solve: Callable[[str, str], str]
    few: Mapping[str, Any]
    more: tuple[Mapping[str, Any], ...] = ()
    wrong: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    share: float = 1.0
