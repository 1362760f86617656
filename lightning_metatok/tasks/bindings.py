"""Keys bound to values, and questions about some of them, as words: what tasks of associative recall are made of.

, OPEN saw : 7 CLOSE         in symbols: OPEN L9 7 CLOSE
⏎Q: saw⏎A: 7                 in symbols: ? L9 7
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN


def put_bindings(
    draft: Draft,
    word: Mapping[str, int],
    key_words_nWX: IntArray,
    values_nW: IntArray,
    *,
    target_nW: NDArray[np.bool_],
    exists_nW: NDArray[np.bool_],
    first: bool = True,
) -> None:
    """Append keys, each of X words, with the words of their values; a segment is one of them.

    Args:
        word: the words of the phrases `comma` and `colon`. target_nW: whether it is asked about. exists_nW: elsewhere
            there is nothing. first: whether none stands before these, so that the first has no comma.
    """
    n, W = values_nW.shape
    columns = [
        np.where(np.arange(W) + (not first) > 0, word["comma"], ABSENT) + np.zeros((n, 1), dtype=np.int64),
        np.full((n, W), OPEN),
        *np.moveaxis(key_words_nWX, 2, 0),
        np.full((n, W), word["colon"]),
        values_nW,
        np.full((n, W), CLOSE),
    ]
    draft.put(
        np.stack(columns, axis=2),
        source=target_nW[..., None] & (np.arange(len(columns)) == len(columns) - 2),
        target=target_nW[..., None],
        where=exists_nW[..., None],
    )


def put_questions(
    draft: Draft, word: Mapping[str, int], key_words_nQX: IntArray, values_nQ: IntArray, *, between: str | None = None
) -> None:
    """Append Q questions with their answers, of the phrases `question` and `answer`, `between` between two of them."""
    for query in range(values_nQ.shape[1]):
        if query and between is not None:
            draft.put(word[between])
        draft.put(word["question"])
        draft.put(key_words_nQX[:, query], key=True)
        draft.put(word["answer"])
        draft.put(values_nQ[:, query], answer=True)
