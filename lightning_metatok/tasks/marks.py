"""Where meta-tokens stand in a prompt: five placements, and the ways to disturb them afterwards.

    none     Fruits : orange , peach . Tools : hammer , wrench . Q: item 2 of Tools ?
    hint     Fruits : orange , peach . Tools : M hammer , wrench M . Q: ...       the paper: at the target
    every    Fruits : M orange , peach M . Tools : M hammer , wrench M . Q: ...   reveals nothing
    after    Fruits : orange , peach M . Tools : hammer , wrench M . Q: ...       one that has seen the whole segment
    random   Fruits : orange M , peach . Tools : hammer , M wrench . Q: ...       as in pre-training

A question may have a mark of its own, in every placement but none:

    after_key        ... Q: item 2 of Tools M ? A: wrench       behind what the question asks about
    before_answer    ... Q: item 2 of Tools ? A: M wrench

All of them are numbers of meta-tokens to put before each token, so that any prompt can get other marks without the task
that made it.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.arrays import IntArray
from lightning_metatok.data.counter import random_bits
from lightning_metatok.data.examples import ANSWER, BODY, CLOSES, CLOSES_TARGET, META, OPENS, OPENS_TARGET, Examples
from lightning_metatok.data.kinds import MetaIds, ids_in_rows

MarkPlacement = Literal["hint", "every", "after", "random", "none"]
QuestionMark = Literal["none", "before_answer", "after_key"]
"""Which place in each question has a mark too, where the placement puts any: see `docs/recall.md`."""

MARKS = 0x6D61726B73
"""Keeps the places of marks apart from other choices that draw from the same seed."""


def put_marks(examples: Examples, before: IntArray, meta_id: MetaIds) -> Examples:
    """Return `examples` with `before[j]` meta-tokens in front of token j, and no others.

    Where examples have position ids, a mark has that of the token it belongs to: the last of a segment that it closes,
    else the token after it.

    Args:
        examples: prompts WITHOUT meta-tokens, see `remove_marks`.
        before: int64, one number a token. meta_id: id of `<|meta|>`, or of all kinds of meta-tokens.
    """
    counts = before + 1
    last = np.cumsum(counts) - 1  # where each token comes to stand: behind its marks
    flags = np.full(counts.sum(), META, dtype=np.uint8)
    flags[last] = examples.flags
    total = np.concatenate([[0], np.cumsum(counts)])
    offsets = total[examples.offsets]
    tokens = ids_in_rows((flags & META) > 0, offsets, meta_id).astype(np.int32)
    tokens[last] = examples.tokens
    ids = None
    if examples.position_ids is not None:
        ids = np.repeat(examples.position_ids, counts)
        closed = np.flatnonzero(first_mark_closes(examples, before))
        ids[last[closed] - before[closed]] = examples.position_ids[closed - 1]
    return Examples(tokens, flags, offsets, {**examples.slices, "length": np.diff(offsets)}, ids)


def first_mark_closes(examples: Examples, before: IntArray) -> NDArray[np.bool_]:
    """Whether the first meta-token before each token closes a segment, [tokens]; one between two may close or open."""
    closes, opens, closes_target, opens_target = (
        (examples.flags & flag) > 0 for flag in (CLOSES, OPENS, CLOSES_TARGET, OPENS_TARGET)
    )
    return (before > 0) & closes & (~opens | (before > 1) | (closes_target & ~opens_target))


def remove_marks(examples: Examples) -> Examples:
    """Return `examples` without meta-tokens."""
    kept = (examples.flags & META) == 0
    offsets = np.concatenate([[0], np.cumsum(kept)])[examples.offsets]
    slices = {**examples.slices, "length": np.diff(offsets)}
    ids = None if examples.position_ids is None else examples.position_ids[kept]
    return Examples(examples.tokens[kept], examples.flags[kept], offsets, slices, ids)


def marks_before(examples: Examples) -> IntArray:
    """Return how many meta-tokens stand directly before each other token: `put_marks(remove_marks(x), this) == x`."""
    meta = (examples.flags & META) > 0
    so_far = np.cumsum(meta)[~meta]
    first = np.concatenate([[0], so_far[:-1]])
    return so_far - first


def at_slots(examples: Examples, *, target_only: bool) -> IntArray:
    """Marks of the placements `every`, and `hint` with `target_only`: one at each start and end of a segment."""
    opens, closes = (OPENS_TARGET, CLOSES_TARGET) if target_only else (OPENS, CLOSES)
    return ((examples.flags & opens) > 0).astype(np.int64) + ((examples.flags & closes) > 0)


def behind_segments(examples: Examples) -> IntArray:
    """Marks of the placement `after`: one at each end of a segment."""
    return ((examples.flags & CLOSES) > 0).astype(np.int64)


def at_random(
    examples: Examples,
    count_n: IntArray,
    seed: int,
    index_n: IntArray,
) -> IntArray:
    """`count_n` marks in each prompt, before different tokens of its body, every choice equally likely.

    A pure function of (seed, index) for each prompt. A body shorter than its count gets one before each token.
    """
    rows = examples.rows()
    column = np.arange(len(rows)) - examples.offsets[rows]
    keys = random_bits(seed ^ MARKS, index_n[rows], column) >> np.uint64(1)
    keys = np.where((examples.flags & BODY) > 0, keys, np.uint64(2**64 - 1))
    order = np.lexsort((keys, rows))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(rows)) - examples.offsets[rows]
    return ((rank < count_n[rows]) & ((examples.flags & BODY) > 0)).astype(np.int64)


def at_wrong_segments(examples: Examples, seed: int, index_n: IntArray) -> IntArray:
    """Marks as `hint` puts them, but around other segments than the target's: a hint that lies.

    As many segments as there are targets, chosen among the others (among all, if there are too few others).
    """
    rows = examples.rows()
    before = np.zeros(len(rows), dtype=np.int64)
    for slots, targets in ((OPENS, OPENS_TARGET), (CLOSES, CLOSES_TARGET)):
        at = np.flatnonzero(examples.flags & slots)
        if len(at) == 0:
            continue
        row = rows[at]
        number = np.arange(len(at)) - np.searchsorted(row, row)  # of the segment in its prompt
        is_target = (examples.flags[at] & targets) > 0
        n_targets = np.bincount(row, weights=is_target, minlength=len(examples)).astype(np.int64)
        keys = random_bits(seed ^ MARKS, index_n[row], number) >> np.uint64(1)
        keys = np.where(is_target, np.uint64(2**64 - 1), keys)
        order = np.lexsort((keys, row))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(at)) - np.searchsorted(row, row)
        before[at] += rank < n_targets[row]
    return before


def before_answers(examples: Examples) -> IntArray:
    """Marks of `before_answer`: one before the first token of each answer."""
    answer = (examples.flags & ANSWER) > 0
    follows = np.concatenate([[False], answer[:-1]])
    follows[examples.offsets[:-1]] = False
    return (answer & ~follows).astype(np.int64)


def answers_before_marks(examples: Examples) -> NDArray[np.bool_]:
    """Whether some token of an answer stands before the first mark of its prompt, [n]; never where there is none."""
    rows, end = examples.rows(), len(examples.tokens)
    first_mark_n, first_answer_n = (np.full(len(examples), end) for _ in range(2))
    for first_n, flag in ((first_mark_n, META), (first_answer_n, ANSWER)):
        at = np.flatnonzero(examples.flags & flag)[::-1]  # the first of a row is written last
        first_n[rows[at]] = at
    return (first_mark_n < end) & (first_answer_n < first_mark_n)


def in_question(examples: Examples) -> NDArray[np.bool_]:
    """Whether a mark before each token is the question's: the token is not of the body and no segment ends there."""
    return (examples.flags & (BODY | OPENS | CLOSES)) == 0


def marks_of_question(examples: Examples) -> NDArray[np.bool_]:
    """Whether each token is a mark of the question, [tokens]."""
    meta = (examples.flags & META) > 0
    found = np.zeros(len(meta), dtype=bool)
    found[meta] = np.repeat(in_question(remove_marks(examples)), marks_before(examples))
    return found


def place(
    examples: Examples,
    placement: MarkPlacement,
    *,
    fraction: float,
    meta_id: MetaIds,
    seed: int,
    index_n: IntArray,
    question: IntArray | None = None,
) -> Examples:
    """Return `examples`, which have no meta-tokens yet, with marks by `placement`.

    Args:
        examples: prompts without meta-tokens. placement: where marks go in the body.
        fraction: share of meta-tokens in the body, for `random`. meta_id: id of `<|meta|>`.
        seed: of places drawn at random. index_n: numbers of the examples, which these places follow from.
        question: further marks, those before each token of the question; none of them where the placement is none.
    """
    if placement == "none":
        return put_marks(examples, np.zeros(len(examples.tokens), dtype=np.int64), meta_id)
    if placement == "random":
        body_n = np.add.reduceat((examples.flags & BODY) > 0, examples.offsets[:-1], dtype=np.int64)
        count_n = np.floor(body_n * fraction / (1 - fraction)).astype(np.int64)
        before = at_random(examples, count_n, seed, index_n)
    elif placement == "after":
        before = behind_segments(examples)
    else:
        before = at_slots(examples, target_only=placement == "hint")
    if question is not None:
        assert not question[~in_question(examples)].any(), "a mark of the question would be taken for one of the body"
        before = before + question
    return put_marks(examples, before, meta_id)
