"""`ls`: the runs under a folder: arm, seed, step, loss and age, the newest first.

    lightning-metatok ls [FOLDER]

FOLDER is runs/, unless it is given. A run that has logged nothing yet, or that cannot be read, stands there with what
is known of it.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_metatok.errors import OptionParser, UserError

CONFIG, METRICS, ARM = "config.yaml", "metrics.jsonl", "arm.json"
LOSSES = ("loss/val", "loss/train")
TAIL = 1 << 16
"""Bytes at the end of metrics.jsonl that are searched first."""


@dataclass(frozen=True)
class Line:
    """What is shown of a run; "" where it is not known. `age_s`: since it wrote last."""

    name: str
    arm: str
    seed: str
    step: str
    loss: str
    age_s: float


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok ls", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"), metavar="FOLDER")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the table."""
    folder = build_parser().parse(argv).folder
    if not os.path.isdir(folder):
        raise UserError(f"ls {folder}: no such folder; expected one with runs in it, as `fit` writes them")
    lines = sorted((line_of(run, folder) for run in run_folders(folder)), key=lambda line: (line.age_s, line.name))
    if not lines:
        print(f"{folder}: no runs")
        return 0
    from rich.table import Table

    from lightning_metatok.console import printer

    table = Table(box=None, pad_edge=False)
    for column in ("run", "arm"):
        table.add_column(column, overflow="fold")
    for column in ("seed", "step", "loss", "age"):
        table.add_column(column, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(line.name, line.arm, line.seed, line.step, line.loss, span(line.age_s))
    printer().print(table)
    return 0


def run_folders(folder: Path) -> Iterator[Path]:
    """Yield the run folders at and under `folder`; nothing inside a run is looked at."""
    for place, names, files in os.walk(folder):
        if CONFIG in files:
            yield Path(place)
            names.clear()
        names[:] = sorted(name for name in names if not name.startswith("."))


def line_of(run: Path, top: Path) -> Line:
    """Read what is shown of a run."""
    from lightning_metatok.yaml_files import followed, read_text

    arm, config, last = "", {}, {}
    with suppress(OSError, ValueError, AttributeError):
        arm = str(json.loads((run / ARM).read_text(encoding="utf-8")).get("arm", ""))
    with suppress(OSError, ValueError, UserError):
        config = followed(read_text((run / CONFIG).read_text(encoding="utf-8"), "YAML"))
    with suppress(OSError):
        last = last_values(run / METRICS)
    loss = next((f"{last[name]:.4f} {name.partition('/')[2]}" for name in LOSSES if name in last), "")
    seed = config.get("seed_everything", "")
    files = [path for name in (CONFIG, METRICS) if (path := run / name).is_file()]
    newest = max(path.stat().st_mtime for path in files)
    name = str(run.relative_to(top)) if run != top else str(run)
    step = f"{last['step']:.0f}" if "step" in last else ""
    return Line(name, arm, str(seed), step, loss, max(0.0, time.time() - newest))


def last_values(path: Path) -> dict[str, float]:
    """Return the last logged value of each name near the end of metrics.jsonl, or in all of it if no loss is there."""
    size = path.stat().st_size
    for start in dict.fromkeys((max(0, size - TAIL), 0)):
        with path.open("rb") as file:
            file.seek(start)
            rows = file.read().splitlines()
        found: dict[str, float] = {}
        for row in rows:
            with suppress(ValueError):
                values: Any = json.loads(row)
                if isinstance(values, dict):
                    found.update({k: v for k, v in values.items() if isinstance(v, int | float)})
        if LOSSES[0] in found:
            break
    return found


def span(seconds: float) -> str:
    """``90`` -> ``1 min``."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
