"""Copying: a text of words with spans in brackets, and the words of one of them.

    text      plum nail Tools [<|meta|> saw fig fig ]<|meta|> rose
              Q: copy Tools
              A: [ saw fig fig ]
    symbols  a3 a9 L4 [ <|meta|> a1 a7 a7 ] <|meta|> a2 ? L4 [ a1 a7 a7 ]

The segment is a span, with a name before it; the target is the span that is asked about. A mark closes it BEHIND its
bracket: there it has read the whole span, and the last word and the bracket stay side by side as in the answer.
Scored are the words and the closing bracket, so that stopping counts; the answer is right when all are.
Content: the span's words. Slices: `n_words` (of the whole text, names left out), `span_length`.
Coupled position ids (Cho et al. 2024, arXiv 2405.20671): words and brackets of the text count from 1, a name has the id
of its bracket, the answer has the ids of its span, and "?" has 0. A span alone has the paper's ids for copying.
Source: arXiv 2509.16278, its synthetic tasks; the names, which let a prompt without marks be answered, and the
wording are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN
from lightning_metatok.tasks.options import ALL_QUESTION_MARKS
from lightning_metatok.tasks.task import Task


@dataclass(frozen=True)
class Copying(Task):
    """Copy a named span."""

    name: ClassVar[str] = "copying"
    sketch: ClassVar[str] = "`a3 L4 [ <meta> a1 a7 ] <meta> a2 ? L4 [` → `a1 a7 ]`"
    grows_with: ClassVar[str] = "words"
    size_field: ClassVar[str] = "n_words"
    default_size: ClassVar[tuple[int, int]] = (8, 32)
    question_marks: ClassVar[tuple[str, ...]] = ALL_QUESTION_MARKS
    content_draws: ClassVar[tuple[str, ...]] = ("words",)
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "open": ("[", " ["),
        "close": ("]", " ]"),
        "question": ("?", "\nQ: copy"),
        "answer": ("", "\nA:"),
    }

    n_words: tuple[int, int] | None = None
    """Words of the text, those in spans included, [fewest, most]."""
    n_spans: tuple[int, int] = (1, 1)
    """Spans in a prompt, [fewest, most]."""
    span_length: tuple[int, int] = (2, 6)
    """Words in a span, [fewest, most]."""
    pool: int | None = None
    """Different words that texts are made of; all there are when not given."""

    @property
    def smallest_size(self) -> int:
        """All spans fit into the text."""
        return self.n_spans[1] * self.span_length[1]

    def check(self) -> None:
        """Spans have different names and do not overlap."""
        there_are = len(self.lexicon.everything)
        if self.pool is not None:
            self.check_integer("pool", 1, there_are, ", the words there are")
        self.check_range("n_spans", 1, len(self.lexicon.names))
        self.check_range("span_length", 1, self.largest_size // self.n_spans[1])
        if self.n_words is not None:
            self.check_range("n_words", 1, self.largest_size)
            self.expect(
                self.n_words[0] >= self.smallest_size,
                "n_words",
                f"at least {self.smallest_size} words, for up to {self.n_spans[1]} spans (n_spans) "
                f"of up to {self.span_length[1]} (span_length)",
            )
        super().check()

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts words."""
        n, W, S, L, lexicon = draws.n, int(size_n.max()), self.n_spans[1], self.span_length[1], self.lexicon
        row_n, at_W, word = np.arange(n), np.arange(W), lexicon.phrase
        words_nW = lexicon.everything[draws.integers("words", 0, (self.pool or len(lexicon.everything)) - 1, W)]
        n_spans_n = draws.integers("spans", *self.n_spans)
        exists_nS = np.arange(S) < n_spans_n[:, None]
        lengths_nS = np.where(exists_nS, draws.integers("lengths", *self.span_length, S), 0)
        names_nS = draws.choose("names", S, len(self.lexicon.names))
        # Spans start in order, after as many of the words outside spans as the sorted draws say.
        outside_n = size_n - lengths_nS.sum(axis=1)
        gaps_nS = draws.integers("places", 0, outside_n[:, None], S)
        gaps_nS = np.sort(np.where(exists_nS, gaps_nS, W), axis=1)
        starts_nS = gaps_nS + np.cumsum(lengths_nS, axis=1) - lengths_nS
        target_n = draws.integers("target", 0, n_spans_n - 1)

        name_nW = np.full((n, W), ABSENT)
        ends_nW, is_source_nW = np.zeros((2, n, W), dtype=bool)
        for s in range(S):
            in_span_nW = (at_W >= starts_nS[:, s, None]) & (at_W < (starts_nS + lengths_nS)[:, s, None])
            name_nW = np.where(
                in_span_nW & (at_W == starts_nS[:, s, None]), lexicon.names[names_nS[:, s, None]], name_nW
            )
            ends_nW |= in_span_nW & (at_W == (starts_nS + lengths_nS)[:, s, None] - 1)
            is_source_nW |= in_span_nW & (target_n == s)[:, None]
        starts_nW = name_nW != ABSENT

        # Words count from 1 and brackets count, too: "[" before a span and "]" behind it.
        n_before_nW = np.cumsum(starts_nW, axis=1) + np.cumsum(ends_nW, axis=1) - ends_nW
        id_nW = at_W + n_before_nW + 1
        draft = Draft(n)
        columns = [
            (name_nW, starts_nW, id_nW - 1),
            (word["open"], starts_nW, id_nW - 1),
            (OPEN, starts_nW, id_nW),
            (words_nW, at_W < size_n[:, None], id_nW),
            (word["close"], ends_nW, id_nW + 1),
            (CLOSE, ends_nW, id_nW + 1),
        ]
        is_word = np.arange(len(columns)) == 3
        draft.put(
            np.stack([np.where(where, words, ABSENT) for words, where, _ in columns], axis=2),
            source=is_source_nW[..., None] & is_word,
            target=is_source_nW[..., None],
            ids=np.stack([ids for _, _, ids in columns], axis=2),
        )
        draft.end_body()
        start_n, length_n = starts_nS[row_n, target_n], lengths_nS[row_n, target_n]
        answer_at_nL = np.minimum(start_n[:, None] + np.arange(L), W - 1)
        first_id_n1 = id_nW[row_n, start_n][:, None]
        before_n = first_id_n1[:, 0] - 1
        draft.put(word["question"], ids=0)
        draft.put(lexicon.names[names_nS[row_n, target_n]], ids=before_n, key=True)
        for part in (word["answer"], word["open"]):
            draft.put(part, ids=before_n)
        in_answer_nL = np.arange(L) < length_n[:, None]
        answer_nL = np.where(in_answer_nL, words_nW[row_n[:, None], answer_at_nL], ABSENT)
        draft.put(answer_nL, answer=True, ids=first_id_n1 + np.arange(L))
        draft.put(word["close"], answer=True, ids=before_n + length_n + 1)
        draft.content(answer_nL)
        draft.slices |= {"n_words": size_n, "span_length": length_n}
        return draft
