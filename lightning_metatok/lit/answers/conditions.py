"""Conditions that a trained model is asked under: what is changed about the marks of its prompts, and nothing else.

    full                                  L9 M a1 a4 M ? 2 L9        as trained
    no_positions, no_embedding, ...       L9 M a1 a4 M ? 2 L9        marks enter without position, or as zeros
    marks_random                          L9 a1 M M a4 ? 2 L9        as many, anywhere in the body
    marks_wrong_segment                   M a7 a5 M L9 a1 a4 ? 2 L9  around another segment: a hint that lies
    marks_removed, marks_doubled          L9 a1 a4 ? 2 L9            none, or two for each one

A mark of the question (`question_mark`) is removed or doubled like the others; random and wrong places are those of
marks in the body, and the question keeps its own.

All conditions ask the SAME items in the same order, so that two of them are compared item by item.
Source: arXiv 2509.16278 (positions and embedding zeroed at inference, only at meta positions).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lightning_metatok.data.examples import Examples
from lightning_metatok.data.kinds import MetaIds
from lightning_metatok.tasks.marks import (
    at_random,
    at_wrong_segments,
    in_question,
    marks_before,
    put_marks,
    remove_marks,
)

Kind = Literal["as trained", "positions", "embedding", "marks"]
Marks = Literal["random", "wrong_segment", "removed", "doubled"]

MOVED = 0x6D6F766564
"""Seed of the places that marks are moved to: the same for all runs, and not one that prompts are made with."""


@dataclass(frozen=True)
class MarkCondition:
    """How the marks are disturbed; the default: not at all."""

    name: str
    """In tags and CSV files."""
    label: str
    """In tables and figures."""
    kind: Kind
    """What the ablation is about."""
    drop_positions: str | None = None
    """As in `MetaTransformer.forward`."""
    zero_meta_embedding: bool = False
    """As in `MetaTransformer.forward`."""
    marks: Marks | None = None
    """Where the marks go instead."""

    def change(self, examples: Examples, meta_id: MetaIds) -> Examples:
        """Return `examples` with their marks where this condition wants them; always the same."""
        if self.marks is None:
            return examples
        bare, index_n = remove_marks(examples), np.arange(len(examples))
        before, asking = marks_before(examples), in_question(bare)
        if self.marks == "random":
            moved_n = np.bincount(bare.rows(), weights=np.where(asking, 0, before), minlength=len(bare))
            before = np.where(asking, before, at_random(bare, moved_n.astype(np.int64), MOVED, index_n))
        elif self.marks == "wrong_segment":
            before = np.where(asking, before, at_wrong_segments(bare, MOVED, index_n))
        else:
            before = before * (2 if self.marks == "doubled" else 0)
        return put_marks(bare, before, meta_id)


FULL = MarkCondition("full", "as trained", "as trained")
