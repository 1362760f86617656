"""Parity: bits with labelled places, and the XOR of all bits before a label.

    text      Bits: 0 1 1 B<|meta|> 0 0 F 1.
              Q: parity before B?
              A: 0
    symbols  zero one one L1 <|meta|> zero zero L5 one ? L1 zero

A segment is everything up to a label: it ends after the label, where a mark has read all of it, and starts with the
prompt, where no mark says anything. The target is the label that is asked about; `every` marks all labels. Content: the
bits. Slices: `n_bits`, `place` (bits before the label asked about). Where the answer stands: at that label.
With `scratchpad` the answer is the parity after each bit up to the label, the last of which is what was asked:

    symbols  zero one one L1 zero ? L1 zero one zero

Coupled position ids (Cho et al. 2024, arXiv 2405.20671): bits between the same labels share an id, the label behind
them and the question about it have the next, and the answer has that of the bits; with one label these are the paper's
ids. With the scratchpad bits count from 1, a label has the id of its bit, the question has 0, and each parity the id
of its bit.
Source: arXiv 2509.16278, its synthetic tasks (the XOR of all bits before the pause); the labels, which let a
prompt without marks be answered, and the wording are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_uppercase
from typing import ClassVar

import numpy as np

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE
from lightning_metatok.tasks.options import ALL_QUESTION_MARKS
from lightning_metatok.tasks.task import Task


@dataclass(frozen=True)
class Parity(Task):
    """XOR of the bits before a label."""

    name: ClassVar[str] = "parity"
    sketch: ClassVar[str] = "`zero one one L1 <meta> zero ? L1` → `zero`"
    grows_with: ClassVar[str] = "bits"
    size_field: ClassVar[str] = "n_bits"
    default_size: ClassVar[tuple[int, int]] = (4, 16)
    question_marks: ClassVar[tuple[str, ...]] = ALL_QUESTION_MARKS
    content_draws: ClassVar[tuple[str, ...]] = ("bits",)
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "zero": ("zero", " 0"),
        "one": ("one", " 1"),
        "bits": ("", " Bits:"),
        "question": ("?", ".\nQ: parity before"),
        "another": ("?", "\nQ: parity before"),
        "answer": ("", "?\nA:"),
        **{letter: ("", f" {letter}") for letter in ascii_uppercase},
    }

    n_bits: tuple[int, int] | None = None
    """Bits in a prompt, [fewest, most]."""
    n_labels: tuple[int, int] = (1, 1)
    """Labels in a prompt, each after another bit, [fewest, most]."""
    n_queries: int = 1
    """Questions in a training prompt, about different labels; one with the placement hint, which marks one label."""
    scratchpad: bool = False
    """The answer writes the parity after each bit, from the first to the label's."""

    @property
    def smallest_size(self) -> int:
        """Each label stands after a bit of its own."""
        return self.n_labels[1]

    @property
    def labels(self) -> IntArray:
        """Words that places are labelled with: letters, in symbols as many of the names."""
        if self.lexicon.rendering == "symbols":
            return self.lexicon.names[: len(ascii_uppercase)]
        return np.array([self.lexicon.phrase[letter] for letter in ascii_uppercase])

    def check(self) -> None:
        """Labels of a prompt are different, and each stands after a bit of its own."""
        self.check_range("n_labels", 1, len(self.labels))
        self.check_integer("n_queries", 1)
        self.expect(isinstance(self.scratchpad, bool), "scratchpad", "true or false")
        if self.n_bits is not None:
            self.check_range("n_bits", 1, self.largest_size)
            least = self.smallest_size
            self.expect(self.n_bits[0] >= least, "n_bits", f"at least {least} bits, one before each of the n_labels")
        super().check()

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts bits."""
        n, B, M = draws.n, int(size_n.max()), self.n_labels[1]
        row_n1, word = np.arange(n)[:, None], self.lexicon.phrase
        exists_nB = np.arange(B) < size_n[:, None]
        bits_nB = draws.integers("bits", 0, 1, B)
        n_labels_n = draws.integers("labels", *self.n_labels)
        labels_nM = self.labels[draws.choose("letters", M, len(self.labels))]
        # The bit that each label stands after. The order of labels is random, so the first ones can be asked about.
        after_nM = draws.shuffle("places", exists_nB)[:, :M]
        n_asked_n = np.minimum(n_labels_n, 1 if self.placement == "hint" else self.n_queries)

        label_nB = np.full((n, B), ABSENT)
        is_target_nB, is_source_nB = np.zeros((2, n, B), dtype=bool)
        for m in range(M):
            row_n = np.flatnonzero(m < n_labels_n)
            at = row_n, after_nM[row_n, m]
            label_nB[at], is_target_nB[at], is_source_nB[at] = labels_nM[row_n, m], m < n_asked_n[row_n], m == 0
        has_label_nB = label_nB != ABSENT

        if self.scratchpad:
            bit_id_nB = label_id_nB = np.tile(np.arange(1, B + 1), (n, 1))
        else:
            bit_id_nB = 2 * (np.cumsum(has_label_nB, axis=1) - has_label_nB)
            label_id_nB = bit_id_nB + 1

        draft = Draft(n)
        draft.put(word["bits"], ids=0)
        no_nB = np.zeros_like(has_label_nB)
        draft.put(
            np.stack([np.array([word["zero"], word["one"]])[bits_nB], label_nB, np.where(has_label_nB, CLOSE, -1)], 2),
            source=np.stack([no_nB, is_source_nB, no_nB], axis=2),
            target=is_target_nB[..., None],
            where=exists_nB[..., None],
            ids=np.stack([bit_id_nB, label_id_nB, label_id_nB], axis=2),
        )
        draft.end_body()
        parity_nB = np.cumsum(bits_nB, axis=1) % 2
        parity_word_nB = np.array([word["zero"], word["one"]])[parity_nB]
        question_id_nM = np.zeros_like(after_nM) if self.scratchpad else label_id_nB[row_n1, after_nM]
        for query in range(min(self.n_queries, M)):
            asked_n = query < n_asked_n
            ids_n, last_n1 = question_id_nM[:, query], after_nM[:, query, None]
            draft.put(word["another" if query else "question"], where=asked_n, ids=ids_n)
            draft.put(labels_nM[:, query], where=asked_n, ids=ids_n, key=True)
            draft.put(word["answer"], where=asked_n, ids=ids_n)
            if self.scratchpad:
                written_nB = asked_n[:, None] & (np.arange(B) <= last_n1)
                draft.put(parity_word_nB, answer=True, where=written_nB, ids=bit_id_nB)
            else:
                answer_id_n = bit_id_nB[row_n1, last_n1][:, 0]
                draft.put(parity_word_nB[row_n1, last_n1][:, 0], answer=True, where=asked_n, ids=answer_id_n)
        draft.content(np.where(exists_nB, bits_nB, ABSENT))
        draft.slices |= {"n_bits": size_n, "place": after_nM[:, 0] + 1}
        return draft
