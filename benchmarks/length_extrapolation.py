"""Every family of positions trained at 128 positions and read at up to 2,048, on the sources of Python's library.

    python -m benchmarks.length_extrapolation [--steps 400] [--families alibi rotary] [--arms plain meta] [--seed 1337]

Each run is `lightning-metatok fit` of a small model, whose position ablation at the end measures the loss per source
token at 1, 2, 4, 8 and 16 times the trained length, with positions kept and (meta arm) dropped at meta-tokens. Results
go to results/length_extrapolation/losses.csv, a row a number, and into losses.png; a run whose rows are there already
is skipped, so that the same command goes on where it was stopped. A learned table has no rows beyond its length.
"""

import argparse
import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

from lightning_metatok.cli import main as cli
from lightning_metatok.files import write_atomically
from lightning_metatok.model.positions import FAMILIES

FOLDER = Path(__file__).resolve().parents[1] / "results" / "length_extrapolation"
TRAINED, MULTIPLES = 128, (1, 2, 4, 8, 16)
ARMS = {"plain": ["--model.meta_attention=false", "--data.meta_fraction=0"], "meta": ["--data.meta_fraction=0.1"]}
COLUMNS = ("family", "arm", "seed", "steps", "context", "positions", "nats_per_source_token")
CONFIG = Path(__file__).resolve().parents[1] / "conf" / "base.yaml"
NANO = ["--model.n_layers=2", "--model.n_heads=4", "--model.d_model=64"]


def run(family: str, arm: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train and measure one family in one arm; return its rows."""
    folder = Path("runs") / "length_extrapolation" / f"{family}_{arm}_{options.seed}_{options.steps}"
    shutil.rmtree(folder, ignore_errors=True)  # what a stopped run left
    arguments = ["fit", "--config", str(CONFIG), *NANO, *ARMS[arm], f"--run_dir={folder}"]
    arguments += [f"--model.position={family}", f"--data.block_size={TRAINED}", f"--seed_everything={options.seed}"]
    arguments += [f"--trainer.max_steps={options.steps}", f"--trainer.val_check_interval={options.steps}"]
    arguments += [f"--ablation.multiples=[{','.join(map(str, MULTIPLES))}]", f"--ablation.windows={options.windows}"]
    if (code := cli(arguments)) != 0:
        raise SystemExit(code)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    measured = next(line for line in reversed(lines) if "ablation/kept_1x" in line)
    same = {"family": family, "arm": arm, "seed": options.seed, "steps": options.steps}
    return [
        {**same, "context": m * TRAINED, "positions": positions, "nats_per_source_token": round(measured[tag], 5)}
        for m in MULTIPLES
        for positions in ("kept", "dropped")
        if (tag := f"ablation/{positions}_{m}x") in measured
    ]


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of an earlier run of this script."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """All rows, at once."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue())


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Loss over context, an arm a panel, a family a colour; dashed where positions are dropped at meta-tokens."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    arms = [arm for arm in ARMS if any(row["arm"] == arm for row in rows)]
    figure = Figure(figsize=(5.6 * len(arms), 4.4), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(arms), squeeze=False, sharey=True)[0]
    lowest = min(float(row["nats_per_source_token"]) for row in rows)
    for panel, arm in zip(panels, arms, strict=True):
        for index, family in enumerate(FAMILIES):
            for positions, style in (("kept", "-"), ("dropped", ":")):
                points = sorted(
                    (int(row["context"]), float(row["nats_per_source_token"]))
                    for row in rows
                    if (row["arm"], row["family"], row["positions"]) == (arm, family, positions)
                )
                if points:
                    label, colour = family if positions == "kept" else None, colormaps["tab20"](index % 20)
                    panel.plot(*zip(*points, strict=True), style, marker=".", color=colour, label=label)
        panel.set_xscale("log", base=2)
        panel.set_xticks([m * TRAINED for m in MULTIPLES], [str(m * TRAINED) for m in MULTIPLES])
        panel.axvline(TRAINED, color="0.7", linewidth=0.8)
        # Families that break would squeeze all others into one line: they leave through the top.
        panel.set_ylim(lowest - 0.05, lowest + 1.1)
        panel.set_title(f"{arm}; dotted: positions dropped at meta-tokens" if arm == "meta" else arm, fontsize=10)
        panel.set_xlabel("positions read (trained at 128)")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("nats per source token")
    panels[0].legend(fontsize=7, ncols=2, loc="upper left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Run what is missing, one after another; the table and the figure grow with each run."""
    parser = argparse.ArgumentParser(description="Loss beyond the trained length, a family of positions a line.")
    parser.add_argument("--steps", type=int, default=400, help="optimiser steps of each run")
    parser.add_argument("--seed", type=int, default=1337, help="seed of weights and data")
    parser.add_argument("--windows", type=int, default=6, help="windows of 2,048 positions that losses are means of")
    text = [name for name, family in FAMILIES.items() if not family.needs_task_ids]
    parser.add_argument("--families", nargs="+", choices=text, default=text)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where results go")
    options = parser.parse_args()
    table = options.folder / "losses.csv"
    for family in options.families:
        for arm in options.arms:
            rows, key = read(table), (family, arm, str(options.seed), str(options.steps))
            if any(tuple(row[column] for column in COLUMNS[:4]) == key for row in rows):
                print(f"{family}, {arm}: measured already")
                continue
            write(table, [*rows, *run(family, arm, options)])
            draw(options.folder / "losses.png", read(table))
    draw(options.folder / "losses.png", read(table))


if __name__ == "__main__":
    main()
