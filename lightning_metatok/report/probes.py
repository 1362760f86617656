"""Pictures that `probe` wrote into run folders, side by side: probe/entropy.png and, with its numbers, entropy.csv."""

import os
from collections.abc import Sequence

from lightning_metatok.report.page import Block, Gallery, Heading, Picture
from lightning_metatok.report.runs import Run

FOLDER = "probe"


def probes(runs: Sequence[Run]) -> list[Block]:
    """Return a gallery, a row a picture and a column a run; nothing where no run has any."""
    found = {run: [path.stem for path in (run.folder / FOLDER).glob("*.png")] for run in runs}
    shown = [run for run in runs if found[run]]
    stems = sorted({stem for run in shown for stem in found[run]})
    if not stems:
        return []
    names = column_names(shown)
    rows = [
        (stem, [_picture(i, stem, name, run) for i, (run, name) in enumerate(zip(shown, names, strict=True), 1)])
        for stem in stems
    ]
    return [Heading("Probes"), Gallery(names, rows)]


def column_names(runs: Sequence[Run]) -> list[str]:
    """Names of run folders, without what all of them begin with."""
    names = [run.folder.resolve().name for run in runs]
    if len(set(names)) == len(names):
        return names
    paths = [str(run.folder.resolve()) for run in runs]
    common = os.path.commonpath(paths)
    return [os.path.relpath(path, common) for path in paths]


def _picture(number: int, stem: str, column: str, run: Run) -> Picture | None:
    """A picture of the `number`-th run, None where it has no such."""
    path = run.folder / FOLDER / f"{stem}.png"
    if not path.is_file():
        return None
    numbers = path.with_suffix(".csv")
    csv = numbers.read_bytes() if numbers.is_file() else None
    return Picture(f"{FOLDER}-{number}-{stem}", path.read_bytes(), f"{stem}, {column}", csv)
