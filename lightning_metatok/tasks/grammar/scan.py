"""SCAN: a command in simplified English, and the actions that it stands for.

    text      walk opposite left twice after jump.⏎Q: actions⏎A: JUMP LTURN LTURN WALK LTURN LTURN WALK.
    symbols  L2 L7 L5 L9 L11 L1 ? a1 a4 a4 a2 a4 a4 a2 ]

A phrase is a verb (walk, look, run, jump, turn), a direction (left, right, opposite or around one of them; turn always
has one) and how often (twice, thrice). `x and y` does x, then y; `x after y` does y first. Phrases are drawn one after
the other, each like any other that leaves no action too many, until the actions are as many as the size says; a
sentence has two phrases, and one or two where it is the last. One sentence is a command of SCAN; prompts of more
phrases have several, with a comma between them (`;` in symbols), carried out in the order they stand in.
The end sign is scored, too. The segment is a phrase; the targets are all of them: `hint` and `every` put the same
marks. Content: the phrases and what connects them. Slices: `n_actions`, `n_phrases`.
Source: SCAN (Lake and Baroni 2018, arXiv 1711.00350), its length split (commands of at most 22 actions, then up to 48),
here by size: `n_actions: [1, 22]`. More than one sentence, how phrases are drawn, and symbols are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lightning_metatok.arrays import IntArray
from lightning_metatok.errors import UserError
from lightning_metatok.tasks.draft import Draft
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT, CLOSE, OPEN
from lightning_metatok.tasks.task import Task

COMMANDS = (
    *("turn", "jump", "walk", "look", "run"),
    *("left", "right", "opposite", "around", "twice", "thrice", "after", "and"),
)
"""Words of commands; in symbols the names with these numbers."""
ACTIONS = ("", "JUMP", "WALK", "LOOK", "RUN", "LTURN", "RTURN")
"""Actions by the word that they stand for; in symbols the items with these numbers."""
TURNS = {"": 0, "plain": 1, "opposite": 2, "around": 4}


def phrases_there_are() -> list[tuple[list[str], list[str]]]:
    """Every phrase and its actions, those with the fewest actions first."""
    action = dict(zip(COMMANDS, ACTIONS, strict=False))
    phrases = []
    for verb in COMMANDS[:5]:
        does = [action[verb]] if action[verb] else []
        for how, turns in TURNS.items():
            for side in ("left", "right") if how else ("",):
                if how or does:
                    words = [verb, *([how] if turns > 1 else []), *([side] if side else [])]
                    turn = [action[side]] if side else []
                    actions = (turn + does) * 4 if how == "around" else turn * turns + does
                    phrases += [(words + more, actions * n) for n, more in ((1, []), (2, ["twice"]), (3, ["thrice"]))]
    return sorted(phrases, key=lambda phrase: len(phrase[1]))


def table(rows: list[list[int]]) -> IntArray:
    """Rows of different lengths as one array, ABSENT behind their ends."""
    width = max(map(len, rows))
    return np.array([row + [ABSENT] * (width - len(row)) for row in rows])


PHRASES = phrases_there_are()
WORDS = table([[COMMANDS.index(word) for word in words] for words, _ in PHRASES])
DOES = table([[ACTIONS.index(action) for action in actions] for _, actions in PHRASES])
LENGTHS = (DOES != ABSENT).sum(axis=1)


@dataclass(frozen=True)
class Scan(Task):
    """Carry out a command."""

    name: ClassVar[str] = "scan"
    sketch: ClassVar[str] = "`<meta> L2 L5 <meta> L11 <meta> L1 <meta> ?` → `a1 a5 a2 ]`"
    grows_with: ClassVar[str] = "actions"
    size_field: ClassVar[str] = "n_actions"
    default_size: ClassVar[tuple[int, int]] = (1, 22)
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        **{word: ("", f" {word}") for word in COMMANDS},
        **{action: ("", f" {action}") for action in ACTIONS if action},
        "comma": (";", ","),
        "stop": ("?", "."),
        "question": ("", "\nQ: actions\nA:"),
        "end": ("]", "."),
    }

    n_actions: tuple[int, int] | None = None
    """Actions of the command, [fewest, most]."""

    def check(self) -> None:
        """In symbols, names and items stand for commands and actions."""
        names, items = len(self.lexicon.names), len(self.lexicon.everything)
        if names < len(COMMANDS) or items < len(ACTIONS):
            raise UserError(
                f"data.task_options.symbols: {names} names and {items} items; expected at least {len(COMMANDS)} names "
                f"and {len(ACTIONS)} items, the words of commands and actions"
            )
        super().check()

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts actions."""
        n, lexicon, word = draws.n, self.lexicon, self.lexicon.phrase
        if lexicon.rendering == "symbols":
            commands, actions = lexicon.names[: len(COMMANDS)], lexicon.everything[: len(ACTIONS)]
        else:
            commands = np.array([word[command] for command in COMMANDS])
            actions = np.array([ABSENT, *(word[action] for action in ACTIONS[1:])])
        phrase_nP = drawn_phrases(draws, size_n)
        P = phrase_nP.shape[1]
        exists_nP = phrase_nP != ABSENT
        after_nP = draws.integers("connectives", 0, 1, P) == 1
        second_P = np.arange(P) % 2 == 1
        follows_nP = exists_nP & second_P
        between_nP = np.where(after_nP, commands[COMMANDS.index("after")], commands[COMMANDS.index("and")])
        between_nP = np.where(second_P, between_nP, word["comma"])
        between_nP[:, 0] = ABSENT
        # The second phrase of a sentence is done first where `after` stands before it.
        swapped_nP = follows_nP & after_nP
        partner_nP = np.where(swapped_nP, np.arange(P) - 1, np.arange(P))
        partner_nP[:, :-1] = np.where(swapped_nP[:, 1:], np.arange(P - 1) + 1, partner_nP[:, :-1])
        done_nP = np.take_along_axis(phrase_nP, partner_nP, axis=1)

        draft = Draft(n)
        slot_nP1 = np.zeros((n, P, 1), dtype=np.int64)
        words_nPW = np.where(WORDS[phrase_nP] == ABSENT, ABSENT, commands[WORDS[phrase_nP]])
        draft.put(
            np.concatenate([between_nP[..., None], slot_nP1 + OPEN, words_nPW, slot_nP1 + CLOSE], axis=2),
            source=np.isin(np.arange(WORDS.shape[1] + 3), np.arange(WORDS.shape[1]) + 2),
            target=True,
            where=exists_nP[..., None],
        )
        draft.put(word["stop"])
        draft.end_body()
        draft.put(word["question"])
        does_nPA = np.where(DOES[done_nP] == ABSENT, ABSENT, actions[DOES[done_nP]])
        draft.put(does_nPA, answer=True, where=(done_nP != ABSENT)[..., None])
        draft.put(word["end"], answer=True)
        draft.content(phrase_nP, np.where(follows_nP, after_nP, ABSENT))
        draft.slices |= {"n_actions": size_n, "n_phrases": exists_nP.sum(axis=1)}
        return draft


def drawn_phrases(draws: Draws, size_n: IntArray) -> IntArray:
    """Return numbers of phrases with `size_n` actions together, ABSENT behind the last, [n, most phrases]."""
    left_n = size_n.copy()
    columns: list[IntArray] = []
    while (left_n > 0).any():
        fitting_n = np.searchsorted(LENGTHS, left_n, side="right")
        drawn_n = draws.integers(f"phrase {len(columns)}", 0, np.maximum(fitting_n, 1) - 1)
        columns.append(np.where(left_n > 0, drawn_n, ABSENT))
        left_n = np.where(left_n > 0, left_n - LENGTHS[drawn_n], 0)
    return np.stack(columns, axis=1)
