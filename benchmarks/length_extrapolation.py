"""Draw the study of length extrapolation and print its table, from what its sweep has measured.

    lightning-metatok sweep run sweeps/length_extrapolation.yaml --workers 2
    lightning-metatok sweep collect sweeps/length_extrapolation.yaml --out results/length_extrapolation/runs.csv
    python -m benchmarks.length_extrapolation

`arms.png` draws sweeps/length_arms.yaml, collected into arms.csv.

`losses.png` has a panel a family: loss over context, in both arms, with positions kept and dropped at meta-tokens; the
mean of the seeds, and all of them as a band. The table has the means at 1, 4 and 16 times the trained length.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from lightning_metatok.palette import BLUE, GREEN, ORANGE, PINK

FOLDER = Path(__file__).resolve().parents[1] / "results" / "length_extrapolation"
TRAINED, MULTIPLES = 128, (1, 2, 4, 8, 16)
KEPT = [f"ablation/kept_{m}x" for m in MULTIPLES]
DROPPED = [f"ablation/dropped_{m}x" for m in MULTIPLES]
LINES = (
    ("plain", KEPT, "plain", BLUE, "-"),
    ("meta", KEPT, "meta", ORANGE, "-"),
    ("meta", DROPPED, "meta, positions dropped at meta-tokens", PINK, "--"),
)
ARM_MULTIPLES = MULTIPLES[:4]
BREAKS = 0.05
"""Nats above the loss at the trained length from which a family counts as broken; below -0.005 it improves."""


def verdict(at_once: float, far: float) -> str:
    """What became of the loss from the trained length to the longest context."""
    if np.isnan(far):
        return "the table ends"
    rise = far - at_once
    return "improves" if rise < -0.005 else "holds" if rise < BREAKS / 2 else "slips" if rise < 2 * BREAKS else "breaks"


def draw(runs: pd.DataFrame, path: Path) -> None:
    """A panel a family, in the order of the file."""
    families = list(dict.fromkeys(runs["model.position"]))
    columns = 5
    rows = -(-len(families) // columns)
    figure = Figure(figsize=(2.5 * columns, 2.3 * rows), dpi=110, layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True).flatten()
    lowest, lengths = runs[KEPT].min().min(), [m * TRAINED for m in MULTIPLES]
    for panel, family in zip(panels, families, strict=False):
        for arm, names, label, colour, style in LINES:
            of_these = runs[(runs["arm"] == arm) & (runs["model.position"] == family)][names].to_numpy(float)
            if len(of_these) == 0 or np.isnan(of_these).all():
                continue
            panel.plot(lengths, of_these.mean(axis=0), style, color=colour, marker=".", label=label)
            panel.fill_between(
                lengths, of_these.min(axis=0), of_these.max(axis=0), color=colour, alpha=0.2, linewidth=0
            )
        _dress(panel, family, lengths, lowest)
    handles, labels = panels[1].get_legend_handles_labels()
    for panel in panels[len(families) :]:
        panel.set_axis_off()
    seeds = runs["seed_everything"].nunique()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(LINES), frameon=False)
    figure.suptitle(
        "Read beyond the trained length (128): score biases hold, rotations and sinusoids break\n"
        f"over the context read [tokens]; mean and range of {seeds} seeds"
    )
    figure.supylabel("nats per source token (higher ones leave the panel)")
    figure.savefig(path)


def _dress(panel: Axes, family: str, lengths: list[int], lowest: float) -> None:
    panel.set_xscale("log", base=2)
    panel.set_xticks(lengths, [str(length) for length in lengths], fontsize=7)
    panel.tick_params(labelbottom=True)
    panel.set_ylim(lowest - 0.05, lowest + 1.2)
    panel.set_title(family, fontsize=10)
    panel.grid(alpha=0.3)


def draw_arms(runs: pd.DataFrame, path: Path) -> None:
    """Three arms under rotary: their losses, and what marks and meta-attention cost, paired by seed."""
    lengths = [TRAINED * m for m in ARM_MULTIPLES]
    by_arm = {arm: of.set_index("seed_everything")[KEPT[:4]] for arm, of in runs.groupby("arm")}
    figure = Figure(figsize=(9, 3.8), dpi=130, layout="constrained")
    losses, differences = figure.subplots(1, 2)
    for arm, colour in (("plain", BLUE), ("pause", GREEN), ("meta", ORANGE)):
        values = by_arm[arm].to_numpy(float)
        losses.plot(lengths, values.mean(axis=0), color=colour, marker="o", label=arm)
        losses.fill_between(lengths, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, linewidth=0)
    for one, other, colour in (("pause", "plain", GREEN), ("meta", "pause", ORANGE)):
        paired = (by_arm[one] - by_arm[other]).to_numpy(float)
        half = stats.t.ppf(0.975, len(paired) - 1) * stats.sem(paired)
        at = np.array(lengths) * (0.98 if one == "pause" else 1.02)
        differences.errorbar(at, paired.mean(axis=0), half, color=colour, marker="o", capsize=3, linewidth=1.6,
                             label=f"{one} - {other}")  # fmt: skip
    differences.axhline(0, color="0.5", linewidth=1)
    for panel, title in ((losses, "loss [nats a source token]"), (differences, "paired difference and 95 % interval")):
        panel.set_xscale("log", base=2)
        panel.set_xticks(lengths, [f"{length:,}" for length in lengths])
        panel.set_xlabel("context read [source tokens]")
        panel.set_title(title, fontsize=10, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    figure.suptitle("Meta-tokens cost, the more the longer the text; meta-attention gives nothing back (5 seeds)")
    figure.savefig(path)


def table(runs: pd.DataFrame) -> str:
    """Means over the seeds as Markdown, a row a family."""
    lines = ["| name | 128 | 512 | 2,048 | beyond, plain | meta arm, 128 | 2,048 | dropped, 128 | dropped, 2,048 |"]
    lines.append("|---" * 9 + "|")
    means = runs.groupby(["model.position", "arm"], sort=False)[[*KEPT, *DROPPED]].mean()
    for family in dict.fromkeys(runs["model.position"]):
        plain, meta = means.loc[(family, "plain")], means.loc[(family, "meta")]
        once, far = plain[KEPT[0]], plain[KEPT[-1]]
        numbers = [once, plain[KEPT[2]], far, meta[KEPT[0]], meta[KEPT[-1]], meta[DROPPED[0]], meta[DROPPED[-1]]]
        cells = ["-" if np.isnan(number) else f"{number:.3f}" for number in numbers]
        cells.insert(3, verdict(once, far))
        lines.append(f"| `{family}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Read what was collected."""
    runs = pd.read_csv(FOLDER / "runs.csv")
    runs = runs[runs["state"] == "done"]
    draw(runs, FOLDER / "losses.png")
    print(table(runs))
    draw_arms(pd.read_csv(FOLDER / "arms.csv"), FOLDER / "arms.png")


if __name__ == "__main__":
    main()
