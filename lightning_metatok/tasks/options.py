"""Options: what all tasks let a user set, how large their prompts are, and how a value that cannot work is refused."""

from abc import ABC
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any, ClassVar, get_args

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.tasks.lexicon import Lexicon, Rendering
from lightning_metatok.tasks.marks import MarkPlacement, QuestionMark

LEVELS: Mapping[str, tuple[int, int]] = {
    "medium": (0, 128),
    "hard": (128, 256),
    "extra-hard": (256, 1024),
    "long": (1024, 2048),
}
"""Tokens of a prompt, answer and marks included: more than the first number, at most the second."""

KEYS = {"placement": "data.meta_placement", "mark_fraction": "data.meta_fraction"}
"""What the user typed for options that belong to all kinds of data."""


ALL_QUESTION_MARKS = get_args(QuestionMark)
LONGEST = 1 << 20
"""Tokens that no prompt is longer than."""


@dataclass(frozen=True)
class Options(ABC):
    """The options of all tasks, and what a subclass says about its own.

    Raises:
        UserError: an option cannot work; the message names its key, the value, what was expected.
    """

    name: ClassVar[str]
    sketch: ClassVar[str] = ""
    """A prompt and its answer, for the table in `docs/recall.md`."""
    grows_with: ClassVar[str] = ""
    """What a longer prompt has more of, for that table."""
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Words of this task alone: name -> (symbol or "", text)."""
    size_field: ClassVar[str]
    """The option that makes prompts longer: a range of segments, bits, pairs, ..."""
    default_size: ClassVar[tuple[int, int]]
    renderings: ClassVar[tuple[str, ...]] = get_args(Rendering)
    placements: ClassVar[tuple[str, ...]] = get_args(MarkPlacement)
    reencodes: ClassVar[bool] = True
    """Whether encoding a prompt's text gives its tokens again; not where text is cut between tokens."""
    content_draws: ClassVar[tuple[str, ...]] = ()
    """Purposes of draws that say what stands in segments, and so what the answer is, and nothing else of a prompt:
    made anew, they give the other prompt of a pair (`tasks.pairs`). None where a task has no segments."""
    question_marks: ClassVar[tuple[str, ...]] = ("none", "before_answer")
    """What `question_mark` may be; ALL_QUESTION_MARKS where questions ask about a key (`Draft.put(..., key=True)`)."""
    needs_haystack: ClassVar[bool] = False
    """Whether rendering text needs `haystack`."""

    lexicon: Lexicon = field(repr=False, compare=False)
    haystack: Any = field(default=None, repr=False, compare=False)
    """Token ids of real text by split, for tasks that hide something in it."""
    _: KW_ONLY
    placement: MarkPlacement = "hint"
    """Where marks go: hint, every, after, random or none."""
    question_mark: QuestionMark = "none"
    """A mark in each question, too: none, before_answer or after_key; with placement none there is none."""
    mark_fraction: float = 0.1
    """Share of marks in the body of a prompt, for placement random."""
    level: str | None = None
    """Difficulty: medium, hard, extra-hard or long; the bin of lengths that every prompt falls into."""
    bin: tuple[int, int] | None = None
    """Tokens of a prompt: more than the first number, at most the second. Given by the level, unless said here."""
    marks_count: bool = True
    """Whether marks are tokens to a level or bin; if not, prompts are the same ones in every placement."""
    coupled: bool = False
    """Position ids that tokens which belong together share, for `model.position=coupled` or any other encoding: a mark
    has the id of the token it belongs to, and some tasks couple more, see there."""

    def __post_init__(self) -> None:
        self.expect(
            self.placement in self.placements, "placement", f"one of {', '.join(self.placements)}", self.placements
        )
        self.expect(0 < self.mark_fraction <= 0.5, "mark_fraction", "a number above 0, at most 0.5")
        if self.level is not None:
            self.expect(
                isinstance(self.level, str) and self.level in LEVELS, "level", f"one of {', '.join(LEVELS)}", LEVELS
            )
        for switch in ("coupled", "marks_count"):
            self.expect(isinstance(getattr(self, switch), bool), switch, "true or false")
        known = self.question_marks
        keyless = "" if "after_key" in known else f"; {self.name} asks about no key"
        self.expect(self.question_mark in known, "question_mark", f"one of {', '.join(known)}{keyless}", known)
        for option in fields(self):
            value = getattr(self, option.name)
            if isinstance(value, list):
                object.__setattr__(self, option.name, tuple(value))
        if self.bin is not None:
            self.check_range("bin", 0, LONGEST)
            self.expect(self.bin[0] < self.bin[1], "bin", "two lengths, a smaller one first")
        self.check()

    def check(self) -> None:
        """Refuse options of the subclass that cannot work. The size range is checked here."""
        low = self.smallest_size
        if self.size is not None:
            self.check_range(self.size_field, low, self.largest_size)

    def expect(
        self,
        right: bool,
        option: str,
        expected: str,
        known: Any = (),
    ) -> None:
        """Raise UserError about `option` unless `right`."""
        if not right:
            value = getattr(self, option)
            shown = list(value) if isinstance(value, tuple) else value
            hint = nearest(str(value), list(known)) if known else ""
            key = KEYS.get(option, f"data.task_options.{option}")
            raise UserError(f"{key}={shown}: expected {expected}{hint}")

    def check_range(self, option: str, low: int, high: int) -> None:
        """Refuse an option unless it is a pair of integers, in order, from `low` to `high`."""
        value = getattr(self, option)
        right = (
            isinstance(value, tuple)
            and len(value) == 2
            and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
            and low <= value[0] <= value[1] <= high
        )
        self.expect(right, option, f"two integers [smallest, largest] between {low} and {high}")

    def check_integer(
        self,
        option: str,
        low: int,
        high: int | None = None,
        what: str = "",
    ) -> None:
        """Refuse an option unless it is an integer from `low` to `high`; `what` tells where the limits come from."""
        value = getattr(self, option)
        right = (
            isinstance(value, int) and not isinstance(value, bool) and low <= value and (high is None or value <= high)
        )
        self.expect(right, option, f"an integer from {low}{'' if high is None else f' to {high}'}{what}")

    # -- sizes

    @property
    def size(self) -> tuple[int, int] | None:
        """The range of the option that makes prompts longer; None: whatever fills the bin."""
        value: tuple[int, int] | None = getattr(self, self.size_field)
        return value

    @property
    def smallest_size(self) -> int:
        """The smallest size there can be; it may depend on other options."""
        return 1

    @property
    def largest_size(self) -> int:
        """The largest size there can be; it may depend on other options."""
        return 100_000

    @property
    def limits(self) -> tuple[int, int] | None:
        """The bin that prompts must fall into."""
        return self.bin if self.bin is not None else LEVELS[self.level] if self.level is not None else None

    @property
    def total_size(self) -> tuple[int, int]:
        """The range of sizes, when no bin decides."""
        low, high = (min(max(size, self.smallest_size), self.largest_size) for size in self.default_size)
        return self.size or (low, high)
