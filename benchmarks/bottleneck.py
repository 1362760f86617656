"""Draw what meta-tokens carry, from the runs of the decisive cell.

    lightning-metatok sweep run sweeps/bottleneck.yaml          and bottleneck_pairs.yaml, bottleneck_lists.yaml
    lightning-metatok sweep collect sweeps/bottleneck.yaml --out results/bottleneck/text.csv
    lightning-metatok sweep collect sweeps/bottleneck_long.yaml --out results/bottleneck/text_long.csv
    python -m benchmarks.bottleneck

`back.png`: accuracy by how far back the answer stands, from back.csv, which is made of the runs' slices.csv where there
are any. `text.png`: loss by how much of its document stands before a token, and the loss against the rows of keys and
values that a token needs, from text.csv. Lines are means of the seeds, bands all of them.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_metatok.palette import BLUE, GREEN, GREY, ORANGE, SKY

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "results" / "bottleneck"
REACH = {"pairs": 6, "lists": 8}
"""Source tokens that two layers of a task's window reach back."""
PLACEMENTS = {"random": "meta-tokens at random", "after": "behind the segment", "chunk_end": "behind every 9 tokens"}
STYLES = {
    ("none", "causal"): ("all earlier tokens", GREY, ":"),
    ("meta", "causal"): ("all earlier tokens, and meta-attention", "black", ":"),
    ("none", "window"): ("a window", SKY, "-"),
    ("meta", "window"): ("a window, and meta-attention", BLUE, "-"),
    ("none", "window_meta"): ("a window and earlier meta-tokens", GREEN, "--"),
    ("meta", "window_meta"): ("both, and meta-attention", ORANGE, "--"),
}
BLOCK, WINDOW, SHARE = 128, 10, 14 / 142
"""Of the text: source tokens of a block, the window of its arms, and the share of meta-tokens among all."""


def parts(arm: str) -> tuple[tuple[str, str], str]:
    """Mechanism and pattern, and placement, of an arm such as none-window-meta-chunk-end."""
    mechanism, rest = arm.replace("_", "-").split("-", 1)
    pattern = "window-meta" if rest.startswith("window-meta") else rest.split("-")[0]
    return (mechanism, pattern.replace("-", "_")), rest[len(pattern) + 1 :].replace("-", "_")


def of_arm(rows: pd.DataFrame, key: tuple[str, str], placement: str) -> pd.DataFrame:
    """Rows of one arm."""
    return rows[[parts(arm) == (key, placement) for arm in rows["arm"]]]


def by_distance() -> pd.DataFrame:
    """A row for each run and group of distances: how many prompts, and which share of them was answered."""
    found = []
    for task in REACH:
        for file in sorted((ROOT / f"runs/sweeps/bottleneck_{task}/runs").glob("*/**/slices.csv")):
            arm, seed, _ = file.relative_to(ROOT / f"runs/sweeps/bottleneck_{task}/runs").parts[0].rsplit("-", 2)
            rows = pd.read_csv(file).query("name == 'back' and condition == 'full' and multiple == 1 and smallest >= 0")
            rows = rows.assign(task=task, arm=arm.replace("_", "-"), seed=int(seed.removeprefix("s")))
            found.append(rows[["task", "arm", "seed", "smallest", "largest", "n", "exact"]])
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def line(axes: Axes, x: np.ndarray, y_SN: np.ndarray, style: tuple[str, str, str]) -> None:
    """Mean over seeds, and all of them as a band."""
    label, colour, dash = style
    axes.plot(x, y_SN.mean(axis=0), dash, color=colour, label=label, linewidth=1.8)
    axes.fill_between(x, y_SN.min(axis=0), y_SN.max(axis=0), color=colour, alpha=0.12, linewidth=0)


def draw_back(rows: pd.DataFrame, file: Path) -> None:
    """A panel for each task and placement."""
    tasks = [task for task in REACH if task in set(rows["task"])]
    figure = Figure(figsize=(9.6, 3.0 * len(tasks) + 1.0), dpi=130, layout="constrained")
    panels = figure.subplots(len(tasks), 2, sharey=True, squeeze=False)
    for task, pair in zip(tasks, panels, strict=True):
        for placement, axes in zip(("random", "after"), pair, strict=True):
            for key, style in STYLES.items():
                of = of_arm(rows[rows["task"] == task], key, placement)
                table = of.pivot_table(index="seed", columns="smallest", values="exact").dropna(axis=1)
                middle = of.groupby("smallest")[["smallest", "largest"]].mean().mean(axis=1)
                if table.size:
                    line(axes, middle[table.columns].to_numpy(), table.to_numpy(), style)
            axes.axvline(REACH[task], color="0.6", linewidth=1)
            axes.set_title(f"{task}, {PLACEMENTS[placement]}", fontsize=10, loc="left")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("source tokens back to the answer (line: the window's reach)", fontsize=9)
            axes.set_ylim(-0.03, 1.05)
        pair[0].set_ylabel("answered exactly")
    finish(
        figure,
        panels[0, 0],
        "Meta-tokens behind what they hold carry it at any distance; at random places they do not",
        file,
    )


def draw_text(rows: pd.DataFrame, title: str, file: Path) -> None:
    """Loss by what stands before a token, at each placement, and loss against rows kept."""
    far = sorted((name for name in rows if name.startswith("loss_behind/")), key=lambda name: int(name.split("/")[1]))
    least = np.array([int(name.split("/")[1]) for name in far])
    placements = [one for one in ("random", "chunk_end") if any(parts(arm)[1] == one for arm in rows["arm"])]
    floor = of_arm(rows, ("none", "window"), placements[0]).set_index("seed_everything")[far]
    figure = Figure(figsize=(3.7 * len(placements) + 3.7, 4.6), dpi=130, layout="constrained")
    *panels, last = figure.subplots(1, len(placements) + 1)
    for placement, axes, marker in zip(placements, panels, "os", strict=False):
        for key, style in STYLES.items():
            of = of_arm(rows, key, placement).set_index("seed_everything")
            line(axes, least, (of[far] - floor).dropna().to_numpy(), style)
            x, y = rows_kept(*key), of["loss/test"].to_numpy()
            last.errorbar(x, y.mean(), [[y.mean() - y.min()], [y.max() - y.mean()]], color=style[1], marker=marker)
        axes.sharey(panels[0])
        axes.set_xscale("log", base=2)
        axes.set_title(PLACEMENTS[placement], fontsize=10, loc="left")
        axes.set_xlabel("source tokens before the target, at least", fontsize=9)
    panels[0].set_ylabel("nats above a window")
    last.set_title("loss against state", fontsize=10, loc="left")
    last.set_xlabel(f"rows kept a layer, of {BLOCK} source tokens", fontsize=9)
    last.set_ylabel("test loss [nats a source token]")
    finish(figure, panels[0], title, file)


def rows_kept(mechanism: str, pattern: str) -> float:
    """Rows of keys and values that the last token of a block of text needs in a layer, both attentions counted."""
    of_meta = BLOCK * SHARE / (1 - SHARE)
    own = {"causal": BLOCK + of_meta, "window": WINDOW, "window_meta": WINDOW * (1 - SHARE) + of_meta}[pattern]
    return own + (of_meta if mechanism == "meta" else 0)


def finish(figure: Figure, labelled: Axes, title: str, file: Path) -> None:
    """Legend below, title above, saved."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = labelled.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=11)
    figure.savefig(file)


def main() -> None:
    """Make back.csv anew where there are runs, and draw what there is."""
    fresh, kept = by_distance(), FOLDER / "back.csv"
    if len(fresh):
        old = pd.read_csv(kept) if kept.exists() else fresh.iloc[:0]
        rows = pd.concat([old[~old["task"].isin(fresh["task"])], fresh])
        rows.sort_values(["task", "arm", "seed", "smallest"]).to_csv(kept, index=False, float_format="%.4f")
    if kept.exists():
        draw_back(pd.read_csv(kept), FOLDER / "back.png")
    for name, steps in (("text", 300), ("text_long", 1500)):
        if (FOLDER / f"{name}.csv").exists():
            title = f"Text, {steps:,} steps of two layers of width 64: what distant context is worth"
            draw_text(pd.read_csv(FOLDER / f"{name}.csv"), title, FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
