"""Whether `fit` would take the values of a sweep: asked before anything runs, and once for what has not changed.

Each distinct value is tried in one run, and pairs of values in a few more: two that do not go together, such as a width
and a number of heads, are mostly found, too. Seeds are within their bounds or not.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

from lightning_metatok.cli.bounds import BOUNDS
from lightning_metatok.errors import UserError
from lightning_metatok.files import cache_folder, write_atomically
from lightning_metatok.sweep import PlannedRun
from lightning_metatok.sweep.expand import canonical
from lightning_metatok.sweep.spec import SEED

MOST_FOR_PAIRS = 24
"""Runs that are tried for the sake of pairs alone: each takes a quarter of a second."""


def check_seeds(file: Path, seeds: Sequence[int]) -> None:
    """Raise `UserError` for a seed that `fit` refuses."""
    valid, expected = BOUNDS[SEED]
    for seed in seeds:
        if not valid(seed):
            raise UserError(f"{file}: seeds: {seed}: expected {expected}")


def check_values(
    file: Path,
    runs: Sequence[PlannedRun],
    kind: str,
    code: str,
) -> None:
    """Try the values of `runs` with the parser of `fit` and the classes that it builds.

    Args:
        file: of the sweep, for messages. runs: all of them. kind: of data, in `KINDS`. code: hash of the code.

    Raises:
        UserError: a value that `fit` would refuse, with its run.
    """
    contents = {path: Path(path).read_text(encoding="utf-8") for run in runs for path in run.configs}
    new = []
    for run in chosen(runs):
        identity = [code, version("lightning"), kind, [contents[path] for path in run.configs], _without_seed(run)]
        digest = hashlib.sha256(canonical(identity).encode()).hexdigest()[:20]
        mark = cache_folder() / "sweep-values" / digest
        if not mark.is_file():
            new.append((run, mark))
    if not new:
        return
    from lightning_metatok.cli.dry_parser import parser_of, try_arguments  # torch, and all that stands on it

    parser = parser_of(kind)
    for run, mark in new:
        try:
            try_arguments(parser, run.arguments())
        except UserError as error:
            raise UserError(f"{file}: {run.label}: {error}") from error
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(mark, json.dumps({"label": run.label}))
        except OSError:
            continue  # it is asked again next time


def chosen(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs to try: one for each value of each axis, and up to `MOST_FOR_PAIRS` for pairs of values."""
    found: dict[str, PlannedRun] = {}
    for most, size in ((len(runs), 1), (MOST_FOR_PAIRS, 2)):
        seen: set[tuple[str, ...]] = set()
        for run in found.values():
            seen.update(_groups(run.axes, size))
        extra = 0
        for run in runs:
            groups = set(_groups(run.axes, size))
            if (groups - seen or not found) and extra < most:
                seen |= groups
                extra += 1
                found[run.id] = run
    return list(found.values())


def _groups(axes: Mapping[str, Any], size: int) -> Iterator[tuple[str, ...]]:
    return combinations([canonical([key, value]) for key, value in axes.items() if key != SEED], size)


def _without_seed(run: PlannedRun) -> dict[str, Any]:
    return {key: value for key, value in run.options.items() if key != SEED}
