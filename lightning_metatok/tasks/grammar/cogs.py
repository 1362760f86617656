"""COGS: a sentence whose clauses or places are nested, and its logical form.

    text      the cook said that the owl liked the bed near the sofa.⏎Q: form⏎A: say ( agent = cook, ccomp = like
              ( agent = owl, theme = bed ( nmod. near = sofa ) ) )
    symbols  a7 L0 a3 L5 a9 L11 a2 ? L0 [ a7 ; L5 [ a3 ; a9 [ L11 a2 ] ] ]

Around a sentence of two nouns stand clauses, one within another (said that, CP), and behind it places, one within
another (near the sofa, PP); the depth is how many of both there are, and how many of them are clauses is drawn first.
The segment is a clause, the sentence in the middle or a place; the targets are all of them: `hint` and `every` put the
same marks. Content: the whole sentence. Slices: `depth`, `n_clauses`.
Source: the CP and PP recursion of COGS (Kim and Linzen 2020, arXiv 2010.05465), whose generalisation set has depths
that were not trained; the form without variables is that of Qiu et al. 2022, arXiv 2112.07610. Left out: all else of
COGS, so proper nouns, indefinites, passives, datives, infinitives, and its lexical generalisation; its training mixes
depths with these, here they are all there is. Words and symbols are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.arrays import IntArray
from lightning_metatok.errors import UserError
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN
from lightning_metatok.tasks.task import Task

SAYING = ("say", "claim", "think", "believe")
SAID = ("said", "claimed", "thought", "believed")
DOING = ("find", "like", "help", "touch")
DID = ("found", "liked", "helped", "touched")
PLACES = ("on", "in", "beside", "near")
FIRST_NAMES = {"saying": 0, "doing": 4, "places": 8}
"""In symbols the names from these numbers on stand for verbs and prepositions."""
N_WORDS = 4


@dataclass(frozen=True)
class Cogs(Task):
    """Write the logical form of a nested sentence."""

    name: ClassVar[str] = "cogs"
    sketch: ClassVar[str] = "`<meta> a7 L0 <meta> <meta> a3 L5 a9 <meta> ?` → `L0 [ a7 ; L5 [ a3 ; a9 ] ]`"
    grows_with: ClassVar[str] = "clauses and places"
    size_field: ClassVar[str] = "depth"
    default_size: ClassVar[tuple[int, int]] = (1, 4)
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        **{word: ("", f" {word}") for word in (*SAYING, *SAID, *DOING, *DID, *PLACES)},
        "the": ("", " the"),
        "that": ("", " that"),
        "stop": ("?", "."),
        "question": ("", "\nQ: form\nA:"),
        "open": ("[", " ("),
        "agent": ("", " agent ="),
        "comma": (";", ","),
        "clause": ("", " ccomp ="),
        "theme": ("", " theme ="),
        "place": ("", " nmod."),
        "equals": ("", " ="),
        "close": ("]", " )"),
    }

    depth: tuple[int, int] | None = None
    """Clauses and places that are nested, together, [fewest, most]."""
    pool: int | None = None
    """Different nouns; all items there are when not given."""

    def check(self) -> None:
        """The pool is made of words that there are; in symbols names stand for verbs and prepositions."""
        if self.pool is not None:
            self.check_integer("pool", 1, len(self.lexicon.everything), ", the items there are")
        if (there_are := len(self.lexicon.names)) < 3 * N_WORDS:
            expected = f"at least {3 * N_WORDS} names, the verbs and prepositions"
            raise UserError(f"data.task_options.symbols: {there_are} names; expected {expected}")
        super().check()

    def words_of(self, kind: str, text: tuple[str, ...]) -> IntArray:
        """Return the four words of a kind: `text`, or names where there is none."""
        if self.lexicon.rendering == "symbols":
            return self.lexicon.names[FIRST_NAMES[kind] : FIRST_NAMES[kind] + N_WORDS]
        return np.array([self.lexicon.phrase[word] for word in text])

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts clauses and places."""
        n, W, word, items = draws.n, int(size_n.max()), self.lexicon.phrase, self.lexicon.everything
        n_clauses_n = draws.integers("clauses", 0, size_n)
        clause_nW = np.arange(W) < n_clauses_n[:, None]
        place_nW = np.arange(W) < (size_n - n_clauses_n)[:, None]
        last = (self.pool or len(items)) - 1
        who_nW, where_nW = (draws.integers(what, 0, last, W) for what in ("speakers", "places"))
        both_n2 = draws.integers("nouns", 0, last, 2)
        saying_nW, place_words_nW = (draws.integers(what, 0, N_WORDS - 1, W) for what in ("saying", "prepositions"))
        doing_n = draws.integers("doing", 0, N_WORDS - 1)
        prepositions_nW = self.words_of("places", PLACES)[place_words_nW]

        def put(parts: list[IntArray | int], where_nW: NDArray[np.bool_], answer: bool) -> None:
            """Write the same parts several times, one number a part or [n, times]."""
            stacked = np.stack([np.broadcast_to(part, where_nW.shape) for part in parts], axis=2)
            source = not answer and stacked >= 0
            draft.put(stacked, answer=answer, source=source, target=True, where=where_nW[..., None])

        draft = Draft(n)
        once_n1 = np.ones((n, 1), dtype=bool)
        agent_n1, theme_n1 = items[both_n2[:, :1]], items[both_n2[:, 1:]]
        the, said = word["the"], self.words_of("saying", SAID)[saying_nW]
        did_n1, do_n1 = (self.words_of("doing", words)[doing_n][:, None] for words in (DID, DOING))
        put([OPEN, the, items[who_nW], said, word["that"], CLOSE], clause_nW, False)
        put([OPEN, the, agent_n1, did_n1, the, theme_n1, CLOSE], once_n1, False)
        put([OPEN, prepositions_nW, the, items[where_nW], CLOSE], place_nW, False)
        draft.put(word["stop"])
        draft.end_body()
        draft.put(word["question"])
        say, opens, agent = self.words_of("saying", SAYING)[saying_nW], word["open"], word["agent"]
        put([say, opens, agent, items[who_nW], word["comma"], word["clause"]], clause_nW, True)
        put([do_n1, opens, agent, agent_n1, word["comma"], word["theme"], theme_n1], once_n1, True)
        put([opens, word["place"], prepositions_nW, word["equals"], items[where_nW]], place_nW, True)
        put([word["close"]], np.arange(W + 1) <= size_n[:, None], True)
        draft.content(
            *(np.where(clause_nW, of_nW, ABSENT) for of_nW in (who_nW, saying_nW)),
            *(np.where(place_nW, of_nW, ABSENT) for of_nW in (where_nW, place_words_nW)),
            both_n2,
            doing_n,
        )
        draft.slices |= {"depth": size_n, "n_clauses": n_clauses_n}
        return draft
