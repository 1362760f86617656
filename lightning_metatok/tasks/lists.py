"""Named lists as words, for the tasks whose prompts are made of them.

Tools : OPEN hammer , wrench , level CLOSE .        in symbols: L9 OPEN a1 a4 a5 CLOSE
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN, Lexicon
from lightning_metatok.tasks.options import ALL_QUESTION_MARKS
from lightning_metatok.tasks.task import Task

PHRASES = {"colon": ("", ":"), "comma": ("", ","), "stop": ("", ".")}
"""What a task of lists has among its `phrases`."""

ITEMS = slice(4, -2, 2)
"""Where the items of a list stand among its words."""


@dataclass(frozen=True)
class NamedLists(Task):
    """Tasks that show lists with different names and ask about one of them; a subclass adds `list_length` and more."""

    size_field: ClassVar[str] = "n_lists"
    default_size: ClassVar[tuple[int, int]] = (2, 5)
    question_marks: ClassVar[tuple[str, ...]] = ALL_QUESTION_MARKS

    n_lists: tuple[int, int] | None = None
    """Lists in a prompt, [fewest, most]."""
    pool: int | None = None
    """Different items that lists are made of; all there are when not given."""
    n_names: int | None = None
    """Different names that lists have; all there are when not given."""
    n_queries: int = 1
    """Questions in a training prompt, about different items of the target; evaluation asks one."""

    def check(self) -> None:
        """Names and questions; what items there can be is the subclass's own."""
        if self.n_names is not None:
            self.check_integer("n_names", 1, len(self.lexicon.names), ", the names there are")
        super().check()
        self.check_items()
        self.check_integer("n_queries", 1)

    def check_items(self) -> None:
        """Refuse lists that there are not items enough for."""

    @property
    def largest_size(self) -> int:
        """Lists of a prompt have different names."""
        return self.n_names or len(self.lexicon.names)

    def put_question(
        self,
        draft: Draft,
        what: ArrayLike,
        link: str,
        names_n: IntArray,
        asked_n: ArrayLike,
    ) -> None:
        """Ask, where `asked_n`, for `what` of the lists with these names; `link` is the phrase between the two.

        Symbols name the list first: the token before the answer says which item it is about.
        """
        word = self.lexicon.phrase
        parts: list[tuple[ArrayLike, bool]] = [(what, False), (word[link], False), (self.lexicon.names[names_n], True)]
        ordered = parts if self.lexicon.rendering == "text" else parts[::-1]
        for part, is_key in ((word["question"], False), *ordered, (word["answer"], False)):
            draft.put(part, where=asked_n, key=is_key)


def list_words(
    lexicon: Lexicon,
    names_nN: IntArray,
    items_nNK: IntArray,
    exists_nNK: NDArray[np.bool_],
) -> IntArray:
    """Return the words of `N` lists in each prompt, int64 [n, N, 2 K + 5]; items that do not exist are ABSENT."""
    n, N, K = items_nNK.shape
    word = lexicon.phrase
    commas_nNK = np.where(exists_nNK & (np.arange(K) > 0), word["comma"], ABSENT)
    items_nNX = np.stack([commas_nNK, np.where(exists_nNK, items_nNK, ABSENT)], axis=3).reshape(n, N, 2 * K)
    before, after = [word["colon"], OPEN], [CLOSE, word["stop"]]
    parts = [names_nN[..., None], np.broadcast_to(before, (n, N, 2)), items_nNX, np.broadcast_to(after, (n, N, 2))]
    return np.concatenate([lexicon.names[parts[0]], *parts[1:]], axis=2)
