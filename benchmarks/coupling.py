"""Draw the study of position coupling and print its table, from what its sweep has measured.

    lightning-metatok sweep run sweeps/coupling.yaml --workers 2
    lightning-metatok sweep collect sweeps/coupling.yaml --out results/coupling/runs.csv
    python -m benchmarks.coupling

`accuracy.png` has a column a task: answers that are wholly right, and right tokens of answers, over the size of the
prompt as a multiple of the largest trained one; a line a seed. The table has the means over the seeds.
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lightning_metatok.palette import BLUE, ORANGE

FOLDER = Path(__file__).resolve().parents[1] / "results" / "coupling"
MULTIPLES = ("1", "1.5", "2", "3")
ROWS = {"answers": "answers wholly right", "answer_tokens": "right tokens of answers"}
SIZES = {"addition": "digits", "copying": "words", "parity": "bits"}
TRAINED = {"addition": 10, "copying": 10, "parity": 10}
IDS = {"coupled": ("coupled ids", BLUE, "-", "o"), "offset": ("random-offset ids", ORANGE, "--", "s")}


def draw(runs: pd.DataFrame, path: Path) -> None:
    """Two rows of panels, a column a task."""
    tasks = list(dict.fromkeys(runs["task"]))
    figure = Figure(figsize=(3.2 * len(tasks), 5.2), dpi=120, layout="constrained")
    panels = figure.subplots(len(ROWS), len(tasks), sharey=True, squeeze=False)
    for column, task in enumerate(tasks):
        sizes = [round(TRAINED[task] * float(m)) for m in MULTIPLES]
        for row, (kind, label) in enumerate(ROWS.items()):
            panel = panels[row, column]
            for ids, (name, colour, style, marker) in IDS.items():
                of_these = runs[(runs["task"] == task) & (runs["ids"] == ids)]
                for number, values in enumerate(of_these[[f"{kind}/full_{m}x" for m in MULTIPLES]].to_numpy(float)):
                    shown = name if number == 0 else None
                    panel.plot(sizes, values, style, marker=marker, color=colour, alpha=0.8, label=shown)
            panel.axvspan(0, TRAINED[task], color="0.93", zorder=0)
            panel.set_xlim(0.8 * TRAINED[task], 3.1 * TRAINED[task])
            panel.set_ylim(-0.03, 1.03)
            panel.set_xticks(sizes)
            panel.grid(alpha=0.3)
            if column == 0:
                panel.set_ylabel(label)
        panels[0, column].set_title(f"{task}, trained up to {TRAINED[task]}", fontsize=10)
        panels[-1, column].set_xlabel(f"{SIZES[task]} of the prompt")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    seeds = runs["seed_everything"].nunique()
    figure.suptitle(f"Coupled ids carry beyond the trained size, random-offset ids do not; {seeds} seeds, a line each")
    figure.savefig(path)


def table(runs: pd.DataFrame) -> str:
    """Means over the seeds as Markdown: exact answers, and right tokens in brackets."""
    lines = ["| task | ids | " + " | ".join(f"{m}x" for m in MULTIPLES) + " |", "|---" * (2 + len(MULTIPLES)) + "|"]
    for (task, ids), of_these in runs.groupby(["task", "ids"], sort=False):
        means = of_these.mean(numeric_only=True)
        cells = [f"{means[f'answers/full_{m}x']:.2f} ({means[f'answer_tokens/full_{m}x']:.2f})" for m in MULTIPLES]
        lines.append(f"| {task} | {IDS[ids][0]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Read what was collected."""
    runs = pd.read_csv(FOLDER / "runs.csv")
    runs = runs[runs["state"] == "done"]
    runs[["task", "ids"]] = runs["arm"].str.split("-", n=1, expand=True)
    draw(runs, FOLDER / "accuracy.png")
    print(table(runs))


if __name__ == "__main__":
    main()
