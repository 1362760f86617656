"""Draw how the meta arm learns the four tasks of the paper, from docs/data/recall_nano.csv.

python -m benchmarks.recall_curves                      draw docs/img/recall_nano.png
python -m benchmarks.recall_curves copying=RUN ...      put runs into the CSV first; a task's runs replace its rows
"""

import csv
import json
import sys
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
CSV, PNG = ROOT / "docs" / "data" / "recall_nano.csv", ROOT / "docs" / "img" / "recall_nano.png"
TASKS = {"list recall": 0.95, "copying": 0.95, "parity": 0.95, "segment counting": 0.8}
"""Tasks, and the accuracy that was aimed at."""

Row = tuple[str, str, int, int, float]


def of_run(task: str, folder: Path) -> list[Row]:
    """The curve of a run folder: task, arm, seed, step, exact accuracy on held-out prompts."""
    card = json.loads((folder / "arm.json").read_text(encoding="utf-8"))
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    name = "accuracy/exact/val"
    curve = {line["step"]: line[name] for line in lines if name in line}
    return [(task, card["arm"], card["seed"], step, round(value, 4)) for step, value in sorted(curve.items())]


def read() -> list[Row]:
    """All rows of the CSV."""
    with CSV.open(encoding="utf-8") as file:
        return [(r["task"], r["arm"], int(r["seed"]), int(r["step"]), float(r["exact"])) for r in csv.DictReader(file)]


def write(rows: list[Row]) -> None:
    """Write the CSV."""
    with CSV.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", "arm", "seed", "step", "exact"])
        writer.writerows(rows)


def draw(rows: list[Row]) -> None:
    """One panel a task; a line a seed of the meta arm."""
    with style.context("petroff10"):
        figure = Figure(figsize=(9, 5.4), dpi=150, layout="constrained")
        panels = figure.subplots(2, 2, sharey=True)
        for axes, (task, aim) in zip(panels.flat, TASKS.items(), strict=True):
            seeds = sorted({row[2] for row in rows if row[:2] == (task, "meta")})
            for number, seed in enumerate(seeds):
                curve = [(step, value) for t, arm, s, step, value in rows if (t, arm, s) == (task, "meta", seed)]
                axes.plot(*zip(*curve, strict=True), label=f"seed {seed}", linestyle=("-", "--", ":")[number % 3])
            axes.axhline(aim, color="0.5", linewidth=1)
            axes.annotate(f"aim: {aim}", (1, aim), xycoords=("axes fraction", "data"), fontsize=8, color="0.4",
                          ha="right", va="top", xytext=(-4, -3), textcoords="offset points")  # fmt: skip
            axes.set_title(task, fontsize=10)
            axes.set_ylim(-0.02, 1.04)
            axes.set_xlim(left=0)
            axes.spines[["top", "right"]].set_visible(False)
        for axes in panels[-1]:
            axes.set_xlabel("optimiser steps of 64 prompts")
        for axes in panels[:, 0]:
            axes.set_ylabel("exact, held-out")
        panels[0, 1].legend(frameon=False, fontsize=8, loc="center right")
        figure.suptitle("The meta arm learns all four tasks, three seeds each", fontsize=11)
        figure.savefig(PNG)


def main() -> None:
    """Take up runs that are named, and draw."""
    rows = read()
    runs = [argument.partition("=")[::2] for argument in sys.argv[1:]]
    for name in dict.fromkeys(task for task, _ in runs):
        task = name.replace("_", " ")
        new = [row for other, folder in runs if other == name for row in of_run(task, Path(folder))]
        rows = [row for row in rows if row[0] != task] + new
    write(rows)
    draw(rows)


if __name__ == "__main__":
    main()
