"""Minesweeper: a board with mines, and the same board with how many mines are around each cell.

    text      o x o⏎o o o⏎Q: count mines⏎A: 1 x 1 1 1 1        symbols  zero one zero ; zero zero zero ; ? 1 one 1 1 1 1

Cells are read row by row; the eight around a cell count, and a mine is written as a mine again. The segment is a row;
the targets are all rows: `hint` and `every` put the same marks. Boards grow by rows, `n_columns` stays. A cell is a
mine with the chance `density`. Content: the board. Slices: `n_rows`, `n_mines`.
Coupled position ids: cells count from 1, an answer's cell has the id of the cell of the board, all else has 0. This is
less than the paper's coupling, which has an id for the row and one for the column; there is one id a token here.
Source: the minesweeper generator of position coupling (Cho et al. 2024, arXiv 2405.20671). Boards of one width and
one density, signs at the ends of rows and the wording are ours.
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

NEIGHBOURS = 8
FINE = 1 << 20
"""Steps that chances are drawn in."""


@dataclass(frozen=True)
class Minesweeper(Task):
    """Count the mines around each cell of a board."""

    name: ClassVar[str] = "minesweeper"
    sketch: ClassVar[str] = "`<meta> zero one zero <meta> ; ?` → `1 one 1`"
    grows_with: ClassVar[str] = "rows"
    size_field: ClassVar[str] = "n_rows"
    default_size: ClassVar[tuple[int, int]] = (2, 6)
    phrases: ClassVar[Mapping[str, tuple[str, str]]] = {
        "free": ("zero", " o"),
        "mine": ("one", " x"),
        "end": (";", "\n"),
        "question": ("?", "Q: count mines"),
        "answer": ("", "\nA:"),
    }

    n_rows: tuple[int, int] | None = None
    """Rows of the board, [fewest, most]."""
    n_columns: int = 5
    """Cells of a row."""
    density: float = 0.25
    """How likely a cell is a mine."""

    def check(self) -> None:
        """There are cells, mines among them, and numbers to count them."""
        self.check_integer("n_columns", 1, 1000)
        number = isinstance(self.density, int | float) and not isinstance(self.density, bool)
        self.expect(number and 0 < self.density < 1, "density", "a number between 0 and 1")
        if (there_are := len(self.lexicon.numbers)) <= NEIGHBOURS:
            raise UserError(f"data.task_options.symbols: {there_are} numbers; expected at least {NEIGHBOURS + 1}")
        super().check()

    def draft(self, draws: Draws, size_n: IntArray) -> Draft:
        """Return the words of the prompts; `size_n` counts rows."""
        n, R, C, word = draws.n, int(size_n.max()), self.n_columns, self.lexicon.phrase
        exists_nR1 = (np.arange(R) < size_n[:, None])[..., None]
        drawn_nRC = draws.integers("mines", 0, FINE - 1, R, C) < self.density * FINE
        mine_nRC = drawn_nRC & exists_nR1
        padded = np.pad(mine_nRC.astype(np.int64), ((0, 0), (1, 1), (1, 1)))
        around_nRC = sum(padded[:, i : i + R, j : j + C] for i in range(3) for j in range(3)) - mine_nRC
        ids_RC = (np.arange(R * C) + 1).reshape(R, C)

        draft = Draft(n)
        opens, closes, end = (np.full((n, R, 1), sign) for sign in (OPEN, CLOSE, word["end"]))
        cells_nRC = np.where(mine_nRC, word["mine"], word["free"])
        draft.put(
            np.concatenate([opens, cells_nRC, closes, end], axis=2),
            source=np.isin(np.arange(C + 3), np.arange(1, C + 1)),
            target=True,
            where=exists_nR1,
            ids=np.pad(ids_RC, ((0, 0), (1, 2))),
        )
        draft.end_body()
        for part in ("question", "answer"):
            draft.put(word[part], ids=0)
        counts_nRC = np.where(mine_nRC, word["mine"], self.lexicon.numbers[around_nRC])
        draft.put(counts_nRC, answer=True, where=exists_nR1, ids=ids_RC)
        draft.content(np.where(exists_nR1, mine_nRC, ABSENT))
        draft.slices |= {"n_rows": size_n, "n_mines": mine_nRC.sum(axis=(1, 2))}
        return draft
