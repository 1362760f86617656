"""Drawing: how a task's options become examples, numbered from 0.

    draft      words of the prompts, for both renderings        (each task its own)
    render     words -> token ids                               `Draft`
    marks      meta-tokens by placement                         `marks`
    accept     content belongs to the split, length fits the bin; else the example is drawn anew

An example is a pure function of (options, seed, split, its number), however many are made at once. Train and test draw
from different random numbers, and a content (what the answer depends on) is of one split for ever: its hash says which.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_metatok.arrays import IntArray
from lightning_metatok.data.counter import random_bits
from lightning_metatok.data.examples import ANSWER, META, SOURCE, Examples, concatenate
from lightning_metatok.errors import UserError
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.marks import before_answers, place, remove_marks
from lightning_metatok.tasks.options import Options

TaskSplit = Literal["train", "test"]

TEST_SHARE = 4
"""One content of so many belongs to the test split."""
ATTEMPTS = 200
CALIBRATION = 128


@dataclass(frozen=True)
class Drawing(Options):
    """Options that can be drawn from; a subclass adds `draft`."""

    @abstractmethod
    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of `draws.n` prompts; `size_n` is what `size_field` names, one number each."""

    def sizes(self, draws: Draws) -> IntArray:
        """Return the size of each prompt: within the range that was given, else what fills the bin, [n]."""
        limits = self.limits
        if self.size is not None or limits is None:
            return draws.integers("size", *self.total_size)
        slope, start = self.tokens_by_size
        low, high = limits
        least = max(low + 1, round(start + slope * self.smallest_size))
        tokens_n = draws.integers("tokens", min(least, high), high)
        sizes_n = np.floor((tokens_n - start) / slope).astype(np.int64)
        return np.clip(sizes_n, self.smallest_size, self.largest_size)

    @cached_property
    def tokens_by_size(self) -> tuple[float, float]:
        """How many tokens a prompt grows by with its size, and with how many it starts: a line through two sizes."""
        near, far = self.smallest_size, min(self.smallest_size + 24, self.largest_size)
        lengths = []
        for size in (near, far):
            draws = Draws(0, "calibration", np.arange(CALIBRATION))
            drawn = self.marked(draws, np.full(CALIBRATION, size))
            lengths.append(float(self._bounded_lengths(drawn).mean()))
        slope = (lengths[1] - lengths[0]) / (far - near) if far > near else lengths[0] / near
        return slope, lengths[0] - slope * near

    def examples(
        self,
        n: int,
        seed: int,
        split: TaskSplit = "train",
        start: int = 0,
    ) -> Examples:
        """Return the examples number start, start + 1, ..., start + n - 1.

        Raises:
            UserError: prompts do not fit their bin, or there are too few different contents.
        """
        return self.numbered(start + np.arange(n), seed, split)

    def numbered(self, index_n: ArrayLike, seed: int, split: TaskSplit = "train") -> Examples:
        """Return the examples with the numbers `index_n`, any integers from 0. Raises as `examples` does."""
        index_n = np.asarray(index_n, dtype=np.int64)
        pending, parts, places = np.arange(len(index_n)), [], []
        fits = np.zeros(0, dtype=bool)
        for attempt in range(ATTEMPTS):
            draws = Draws(seed, split, index_n[pending], attempt)
            drawn = self.marked(draws, self.sizes(draws), seed)
            fits = self.fits(drawn)
            accepted = fits & self.of_split(drawn, split)
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

    def marked(self, draws: Draws, size_n: IntArray, seed: int = 0) -> Examples:
        """Return prompts of the sizes `size_n` with their marks, whether they fit or not.

        Their slice `content` is the hash that `of_split` reads. `seed`: of marks at random places.
        """
        draft = self.draft(draws, size_n)
        draft.slices["content"] = draft.content_n.view(np.int64)
        bare, key_ends = draft.render(self.lexicon, coupled=self.coupled)
        question = {"none": None, "before_answer": before_answers(bare), "after_key": key_ends}[self.question_mark]
        return place(
            bare,
            self.placement,
            fraction=self.mark_fraction,
            meta_id=self.lexicon.tokenizer.meta_ids,
            seed=seed,
            index_n=draws.index_n,
            question=question,
        )

    def fits(self, drawn: Examples) -> NDArray[np.bool_]:
        """Whether each prompt falls into the bin, [n]."""
        limits = self.limits
        if limits is None:
            return np.ones(len(drawn), dtype=bool)
        length_n = self._bounded_lengths(drawn)
        return (length_n > limits[0]) & (length_n <= limits[1])

    def _bounded_lengths(self, drawn: Examples) -> IntArray:
        return drawn.lengths if self.marks_count else remove_marks(drawn).lengths

    def of_split(self, drawn: Examples, split: TaskSplit) -> NDArray[np.bool_]:
        """Whether the content of each prompt that `marked` made belongs to `split`, [n]."""
        tested = random_bits(0, drawn.slices["content"].view(np.uint64)) % np.uint64(TEST_SHARE) == 0
        return tested if split == "test" else ~tested

    def _why_not(self, fits: NDArray[np.bool_], split: TaskSplit) -> str:
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


def measured(examples: Examples) -> dict[str, IntArray]:
    """Slices that tokens tell: where the answer stands, how far behind a mark, and how far back for who must say it.

    `position`: tokens before the first place that holds the answer. `distance`: tokens from the last mark before that
    place, -1 if there is none. `back`: source tokens from that place to the first token of the answer, marks not
    counted, so that it is the same in every arm; -1 where no place holds it.
    """
    n, rows = len(examples), examples.rows()
    places = np.arange(len(rows))

    def first_with(flag: np.uint8) -> IntArray:
        first_n = np.full(n, -1, dtype=np.int64)
        at = np.flatnonzero(examples.flags & flag)[::-1]  # the first of a row is written last
        first_n[rows[at]] = at
        return first_n

    source, answer = first_with(SOURCE), first_with(ANSWER)
    sources_so_far = np.cumsum((examples.flags & META) == 0)
    last_mark = np.maximum.accumulate(np.where((examples.flags & META) > 0, places, -1))
    mark = last_mark[np.maximum(source, 0)]
    known = source >= 0
    asked = known & (answer >= 0)
    marked = known & (mark >= examples.offsets[:-1])
    return {
        "position": np.where(known, source - examples.offsets[:-1], -1),
        "distance": np.where(marked, source - mark, -1),
        "back": np.where(asked, sources_so_far[answer] - sources_so_far[source], -1),
    }
