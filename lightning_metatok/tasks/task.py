"""Task: a recall task as one config class that makes examples from (n, seed, split).

    draft      words of the prompts, for both renderings        (each task its own)
    render     words -> token ids                               `Lexicon`
    marks      meta-tokens by placement                         `marks`
    accept     content belongs to the split, length fits the bin; else the example is drawn anew

An example is a pure function of (options, seed, split, its number), however many are made at once. Train and test draw
from different random numbers, and a content (what the answer depends on) is of one split for ever: its hash says which.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_metatok.data.counter import random_bits
from lightning_metatok.data.examples import (
    ANSWER,
    BODY,
    CLOSES,
    CLOSES_TARGET,
    META,
    OPENS,
    OPENS_TARGET,
    SOURCE,
    Example,
    Examples,
    concatenate,
)
from lightning_metatok.errors import UserError, nearest
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN, Lexicon, Rendering
from lightning_metatok.tasks.marks import Placement, place

IntArray = NDArray[np.int64]
Split = Literal["train", "test"]

LEVELS: Mapping[str, tuple[int, int]] = {
    "medium": (0, 128),
    "hard": (128, 256),
    "extra-hard": (256, 1024),
    "long": (1024, 2048),
}
"""Tokens of a prompt, answer and marks included: more than the first number, at most the second."""

KEYS = {"placement": "data.meta_placement", "mark_fraction": "data.meta_fraction"}
"""What the user typed for options that belong to all kinds of data."""

TEST_SHARE = 4
"""One content of so many belongs to the test split."""
LONGEST = 1 << 20
"""Tokens that no prompt is longer than."""
ATTEMPTS = 200
CALIBRATION = 128


class Score(NamedTuple):
    """How much of an answer is right: tokens that match, tokens there are, and whether all match."""

    n_right: int
    n_tokens: int
    exact: bool


class Draft:
    """Words of n prompts side by side; what is ABSENT leaves no trace.

    Attributes:
        content_n: uint64, hash of what the answer depends on, see `content`.
        slices: what accuracy can be split by, int64 [n] each.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._columns: list[tuple[IntArray, NDArray[np.uint8], IntArray | None]] = []
        self._in_body = True
        self.content_n = np.zeros(n, dtype=np.uint64)
        self.slices: dict[str, IntArray] = {}

    def put(
        self,
        words: ArrayLike,
        *,
        answer: ArrayLike = False,
        source: ArrayLike = False,
        target: ArrayLike = False,
        where: ArrayLike = True,
        ids: ArrayLike | None = None,
    ) -> None:
        """Append words, ABSENT, OPEN and CLOSE among them.

        Args:
            words: one for all prompts, or [n], or [n, ...] read row by row.
            answer: these words are scored. source: the answer stands here. target: these OPEN and CLOSE belong to a
                segment that the answer depends on. where: elsewhere there is nothing. ids: position ids, where the task
                couples words; those of a slot do not matter. All broadcast against `words`.
        """
        words_ = np.asarray(words, dtype=np.int64)
        if words_.ndim == 0:
            words_ = np.full(self.n, words_)
        shape = np.broadcast_shapes(words_.shape, *(np.shape(x) for x in (answer, source, target, where)))
        words_ = np.where(where, np.broadcast_to(words_, shape), ABSENT)
        flags = np.full(shape, BODY if self._in_body else 0, dtype=np.uint8)
        flags |= np.where(answer, ANSWER, np.uint8(0)) | np.where(source, SOURCE, np.uint8(0))
        targets = np.broadcast_to(target, shape)
        for slot, flag, wanted in ((OPEN, OPENS, OPENS_TARGET), (CLOSE, CLOSES, CLOSES_TARGET)):
            flags = np.where(words_ == slot, np.where(targets, flag | wanted, flag), flags).astype(np.uint8)
        if ids is not None:
            ids = np.broadcast_to(np.asarray(ids, dtype=np.int64), shape).reshape(self.n, -1)
        self._columns.append((words_.reshape(self.n, -1), flags.reshape(self.n, -1), ids))

    def end_body(self) -> None:
        """What follows is the question: no random marks there."""
        self._in_body = False

    def content(self, *parts: ArrayLike) -> None:
        """Say what the answer depends on: integers, [n] or [n, ...] each; ABSENT leaves no trace."""
        for part in parts:
            part_nm = np.asarray(part, dtype=np.int64).reshape(self.n, -1)
            hashed_nm = np.where(part_nm == ABSENT, np.uint64(0), random_bits(0, np.arange(part_nm.shape[1]), part_nm))
            self.content_n = random_bits(0, self.content_n, np.bitwise_xor.reduce(hashed_nm, axis=1))

    def render(self, lexicon: Lexicon, *, coupled: bool = False) -> Examples:
        """Return the prompts as tokens, without meta-tokens; `coupled`: with the words' position ids.

        All tokens of a word have its id. A task that gives none couples marks alone: its tokens have 0, 1, 2, ...
        """
        words = np.concatenate([words for words, _, _ in self._columns], axis=1)
        flags = np.concatenate([flags for _, flags, _ in self._columns], axis=1)
        given = [ids for _, _, ids in self._columns if ids is not None]
        assert len(given) in (0, len(self._columns)), "some words have position ids, others none"
        present = words != ABSENT
        rows, _ = np.nonzero(present)
        words, flags = words[present], flags[present]
        is_slot = words < 0
        tokens, counts_of_words = lexicon.expand(words[~is_slot])
        counts = np.zeros(len(words), dtype=np.int64)
        counts[~is_slot] = counts_of_words
        token_flags = np.repeat(np.where(is_slot, 0, flags), counts).astype(np.uint8)
        # A slot's flags go to the first token after it.
        first_token = np.cumsum(counts) - counts
        np.bitwise_or.at(token_flags, first_token[is_slot], flags[is_slot] & ~BODY)
        lengths = np.bincount(rows, weights=counts, minlength=self.n).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids = None
        if coupled and given:
            ids = np.repeat(np.concatenate(given, axis=1)[present], counts).astype(np.int32)
        elif coupled:
            ids = (np.arange(len(tokens)) - np.repeat(offsets[:-1], lengths)).astype(np.int32)
        return Examples(tokens, token_flags, offsets, {"length": lengths, **self.slices}, ids)


@dataclass(frozen=True)
class Task(ABC):
    """What all tasks have in common; a subclass adds its sizes and `draft`.

    Raises:
        UserError: an option cannot work; the message names its key, the value, what was expected.
    """

    name: ClassVar[str]
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Words of this task alone: name -> (symbol or "", text)."""
    size_field: ClassVar[str]
    """The option that makes prompts longer: a range of segments, bits, pairs, ..."""
    default_size: ClassVar[tuple[int, int]]
    renderings: ClassVar[tuple[str, ...]] = get_args(Rendering)
    placements: ClassVar[tuple[str, ...]] = get_args(Placement)
    reencodes: ClassVar[bool] = True
    """Whether encoding a prompt's text gives its tokens again; not where text is cut between tokens."""
    content_draws: ClassVar[tuple[str, ...]] = ()
    """Purposes of draws that say what stands in segments, and so what the answer is, and nothing else of a prompt:
    made anew, they give the other prompt of a pair (`tasks.pairs`). None where a task has no segments."""
    needs_haystack: ClassVar[bool] = False
    """Whether rendering text needs `haystack`."""

    lexicon: Lexicon = field(repr=False, compare=False)
    haystack: Any = field(default=None, repr=False, compare=False)
    """Token ids of real text by split, for tasks that hide something in it."""
    _: KW_ONLY
    placement: Placement = "hint"
    """Where marks go: hint, every, random or none."""
    mark_fraction: float = 0.1
    """Share of marks in the body of a prompt, for placement random."""
    level: str | None = None
    """Difficulty: medium, hard, extra-hard or long; the bin of lengths that every prompt falls into."""
    bin: tuple[int, int] | None = None
    """Tokens of a prompt: more than the first number, at most the second. Given by the level, unless said here."""
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
        self.expect(isinstance(self.coupled, bool), "coupled", "true or false")
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

    def expect(self, right: bool, option: str, expected: str, known: Any = ()) -> None:
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

    def check_integer(self, option: str, low: int, high: int | None = None, what: str = "") -> None:
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

    def longer(self, multiple: float) -> "Task":
        """Return the task at `multiple` times the largest trained length.

        With given sizes, that many segments (bits, ...) in every prompt; with a level alone, prompts that reach between
        0.85 and 1 times the length.

        Raises:
            UserError: the task has no such sizes.
        """
        if multiple <= 0:
            raise UserError(f"lengths={multiple}: expected a positive multiple of the trained length")
        if self.size is None and self.limits is not None:
            top = round(self.limits[1] * multiple)
            return replace(self, level=None, bin=(int(0.85 * top), top))
        size = max(self.smallest_size, round(self.total_size[1] * multiple))
        changes: dict[str, Any] = {self.size_field: (size, size), "level": None, "bin": None}
        return replace(self, **changes)

    def asking_once(self) -> "Task":
        """Return the task with one question a prompt, where several are a way to train faster."""
        changes: dict[str, Any] = {"n_queries": 1} if hasattr(self, "n_queries") else {}
        return replace(self, **changes)

    def _sizes(self, draws: Draws) -> IntArray:
        limits = self.limits
        if self.size is not None or limits is None:
            return draws.integers("size", *self.total_size)
        slope, start = self._tokens_by_size
        low, high = limits
        least = max(low + 1, round(start + slope * self.smallest_size))
        tokens_n = draws.integers("tokens", min(least, high), high)
        sizes_n = np.floor((tokens_n - start) / slope).astype(np.int64)
        return np.clip(sizes_n, self.smallest_size, self.largest_size)

    @cached_property
    def _tokens_by_size(self) -> tuple[float, float]:
        """How many tokens a prompt grows by with its size, and with how many it starts: a line through two sizes."""
        near, far = self.smallest_size, min(self.smallest_size + 24, self.largest_size)
        lengths = []
        for size in (near, far):
            draws = Draws(0, "calibration", np.arange(CALIBRATION))
            lengths.append(float(self._marked(draws, np.full(CALIBRATION, size)).lengths.mean()))
        slope = (lengths[1] - lengths[0]) / (far - near) if far > near else lengths[0] / near
        return slope, lengths[0] - slope * near

    # -- examples

    @abstractmethod
    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of `draws.n` prompts; `size_n` is what `size_field` names, one number each."""

    def examples(self, n: int, seed: int, split: Split = "train", start: int = 0) -> Examples:
        """Return the examples number start, start + 1, ..., start + n - 1.

        Raises:
            UserError: prompts do not fit their bin, or there are too few different contents.
        """
        return self.numbered(start + np.arange(n), seed, split)

    def numbered(self, index_n: ArrayLike, seed: int, split: Split = "train") -> Examples:
        """Return the examples with the numbers `index_n`, any integers from 0. Raises as `examples` does."""
        index_n = np.asarray(index_n, dtype=np.int64)
        pending, parts, places = np.arange(len(index_n)), [], []
        fits = np.zeros(0, dtype=bool)
        for attempt in range(ATTEMPTS):
            draws = Draws(seed, split, index_n[pending], attempt)
            drawn = self._marked(draws, self._sizes(draws), seed)
            fits = self._fits(drawn)
            accepted = fits & self._of_split(drawn, split)
            if accepted.any():
                parts.append(drawn.take(np.flatnonzero(accepted)))
                places.append(pending[accepted])
            pending = pending[~accepted]
            if len(pending) == 0:
                break
        else:
            raise UserError(self._why_not(fits, split))
        made = concatenate(parts).take(np.argsort(np.concatenate(places)))
        slices = {key: value for key, value in made.slices.items() if key != "content"}
        return replace(made, slices={**slices, **measured(made)})

    def _marked(self, draws: Draws, size_n: IntArray, seed: int = 0) -> Examples:
        draft = self.draft(draws, size_n)
        draft.slices["content"] = draft.content_n.view(np.int64)
        return place(
            draft.render(self.lexicon, coupled=self.coupled),
            self.placement,
            fraction=self.mark_fraction,
            meta_id=self.lexicon.tokenizer.meta_id,
            seed=seed,
            index_n=draws.index_n,
        )

    def _fits(self, drawn: Examples) -> NDArray[np.bool_]:
        limits = self.limits
        if limits is None:
            return np.ones(len(drawn), dtype=bool)
        return (drawn.lengths > limits[0]) & (drawn.lengths <= limits[1])

    def _of_split(self, drawn: Examples, split: Split) -> NDArray[np.bool_]:
        tested = random_bits(0, drawn.slices["content"].view(np.uint64)) % np.uint64(TEST_SHARE) == 0
        return tested if split == "test" else ~tested

    def _why_not(self, fits: NDArray[np.bool_], split: Split) -> str:
        limits = self.limits
        size = f"data.task_options.{self.size_field}={list(self.size) if self.size else None}"
        if limits is not None and not fits.all():
            named = f"level {self.level}" if self.level and self.bin is None else "the bin"
            fitting = "another level or other options" if self.size is None else "other sizes, or none to fill the bin"
            return (
                f"{size}: prompts of {self.name} do not fit {named}, more than {limits[0]} and at most {limits[1]} "
                f"tokens; expected {fitting}"
            )
        return f"{size}: {self.name} has too few different contents for a {split} split; expected larger sizes"

    def score(self, prediction: ArrayLike, example: Example) -> Score:
        """Compare predicted token ids with the answer of `example`."""
        answer, predicted = example.answer, np.asarray(prediction)
        right = int((answer[: len(predicted)] == predicted[: len(answer)]).sum())
        return Score(right, len(answer), len(predicted) == len(answer) == right)

    def text(self, example: Example) -> str:
        """Return an example as text, meta-tokens written as `<|meta|>`."""
        return self.lexicon.tokenizer.decode(example.tokens.tolist(), skip_meta=False)

    def describe(self) -> dict[str, Any]:
        """Return everything that examples depend on, besides seed and split, as plain values."""
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("lexicon", "haystack")}
        return {
            "task": self.name,
            "rendering": self.lexicon.rendering,
            "tokenizer": self.lexicon.tokenizer.fingerprint(),
            **{key: list(value) if isinstance(value, tuple) else value for key, value in options.items()},
        }


def measured(examples: Examples) -> dict[str, IntArray]:
    """Slices that tokens tell: where the answer stands, and how far behind a mark.

    `position`: tokens before the first place that holds the answer. `distance`: tokens from the last mark before that
    place, -1 if there is none.
    """
    n, rows = len(examples), examples.rows()
    places = np.arange(len(rows))
    source = np.full(n, -1, dtype=np.int64)
    at = np.flatnonzero(examples.flags & SOURCE)[::-1]  # the first of a row is written last
    source[rows[at]] = at
    last_mark = np.maximum.accumulate(np.where((examples.flags & META) > 0, places, -1))
    mark = last_mark[np.maximum(source, 0)]
    known = source >= 0
    marked = known & (mark >= examples.offsets[:-1])
    return {
        "position": np.where(known, source - examples.offsets[:-1], -1),
        "distance": np.where(marked, source - mark, -1),
    }
