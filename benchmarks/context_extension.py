"""A trained rotary model reads four times its context: plain, linear, NTK-aware, dynamic and YaRN, compared.

    python benchmarks/context_extension.py [--arms meta plain] [--seeds 0] [--base_steps 400] [--tune_steps 40]

For each arm and seed a small model is trained on the sources of Python's standard library at 128 tokens. Each scaling
(factor 4) is then measured on held-out text at 1, 2 and 4 times that length, once as it is and once after a short
fine-tune at 4 times the length, which reads 10 % of the tokens of the training. Every length reads the same text with
the same meta-tokens; the loss is a source token's, in nats. Dynamic scaling needs no fine-tune, and gets none.

What is finished is not run again: checkpoints lie in runs/context_extension, measurements in results/context_extension.
"""

import argparse
import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

from lightning_metatok.cli import main as metatok
from lightning_metatok.files import write_atomically
from lightning_metatok.lit import MetaTokenDataModule, MetaTokenLM
from lightning_metatok.lit.checkpoints.io import read_state
from lightning_metatok.palette import BLUE, GREEN, GREY, ORANGE, SKY

ROOT = Path(__file__).resolve().parents[1]
RUNS, RESULTS = Path("runs/context_extension"), ROOT / "results" / "context_extension"
LENGTH, MULTIPLES = 128, (1, 2, 4)
FACTOR = MULTIPLES[-1]
TOKENS = 4096
"""Tokens of a batch, at any length."""
METHODS: dict[str, dict[str, Any]] = {
    "none": {},
    "linear": {"scaling": "linear", "factor": float(FACTOR)},
    "ntk": {"scaling": "ntk", "factor": float(FACTOR)},
    "yarn": {"scaling": "yarn", "factor": float(FACTOR), "original_max_positions": LENGTH},
    "dynamic": {"scaling": "dynamic", "original_max_positions": LENGTH},
}


@dataclass(frozen=True)
class Row:
    """One measurement: loss per source token [nats] and its standard error over windows of text."""

    arm: str
    seed: int
    base_steps: int
    method: str
    tune_steps: int
    multiple: int
    length: int
    nats: float
    standard_error: float


def main() -> None:
    """Train, measure what is missing, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=["meta", "plain"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--base_steps", type=int, default=400)
    parser.add_argument("--tune_steps", type=int, default=40)
    parser.add_argument("--windows", type=int, default=48)
    flags = parser.parse_args()
    rows = read(RESULTS / "losses.csv")
    plan = [
        (seed, arm, method, steps)
        for seed in flags.seeds
        for arm in flags.arms
        for steps in (0, flags.tune_steps)
        for method in flags.methods
        if not (steps and method == "dynamic")
    ]
    plan.sort(key=lambda case: case[2] == "dynamic")  # last: on a CPU it takes longest
    for seed, arm, method, steps in plan:
        case = (arm, seed, flags.base_steps, method, steps)
        if any((row.arm, row.seed, row.base_steps, row.method, row.tune_steps) == case for row in rows):
            continue
        name = f"{arm}-{seed}-{flags.base_steps}"
        checkpoint = train(name, arm, seed, flags.base_steps)
        if steps:
            checkpoint = tune(f"{name}-{method}-{steps}", checkpoint, arm, seed, method, steps)
        rows += measure(checkpoint, case, flags.windows)
        write(RESULTS / "losses.csv", rows)
        print(*(f"{row.arm} {row.method} {row.tune_steps} {row.length}: {row.nats:.4f}" for row in rows[-3:]), sep="\n")
    draw(rows, RESULTS / "losses.png")


def train(name: str, arm: str, seed: int, steps: int) -> Path:
    """Return the checkpoint of the trained model."""
    return fit(
        name,
        f"--config={ROOT}/conf/base.yaml",
        f"--config={ROOT}/conf/arm/{arm}.yaml",
        f"--seed_everything={seed}",
        f"--data.block_size={LENGTH}",
        f"--data.batch_size={TOKENS // LENGTH}",
        f"--trainer.max_steps={steps}",
        f"--trainer.val_check_interval={steps}",
    )


def tune(name: str, start: Path, arm: str, seed: int, method: str, steps: int) -> Path:
    """Return the checkpoint of a short training at the full length, from the weights of `start`."""
    length = FACTOR * LENGTH
    options = [f"--model.position_options.{key}={value}" for key, value in METHODS[method].items()]
    return fit(
        name,
        f"--config={ROOT}/conf/base.yaml",
        f"--config={ROOT}/conf/arm/{arm}.yaml",
        f"--seed_everything={seed + 1000}",
        f"--model.init_from={start}",
        *options,
        f"--data.block_size={length}",
        f"--data.batch_size={TOKENS // length}",
        f"--trainer.max_steps={steps}",
        f"--trainer.val_check_interval={steps}",
        "--model.optimizer.lr=4e-4",
        "--model.optimizer.min_lr=4e-5",
        "--model.optimizer.warmup_steps=4",
    )


def fit(name: str, *arguments: str) -> Path:
    """Run `lightning-metatok fit` unless its last checkpoint is there."""
    last = RUNS / name / "checkpoints" / "last.ckpt"
    if not last.exists():
        # What `fit` measures beside training is not asked for here.
        quick = ["--ablation.multiples=[1]", "--ablation.windows=1", "--data.validation_blocks=8"]
        code = metatok(["fit", *arguments, *quick, "--bigram.max_tokens=10000", f"--run_dir={RUNS / name}"])
        if code:
            raise SystemExit(code)
    return last


@torch.no_grad()
def measure(checkpoint: Path, case: tuple[str, int, int, str, int], windows: int) -> list[Row]:
    """Loss at all lengths, on the same text; `case` are the first fields of a row."""
    arm, seed, _, method, _ = case
    hyperparameters = read_state(checkpoint, key="checkpoint")["hyper_parameters"]
    model = MetaTokenLM(
        **{**hyperparameters, "compile": False, "position_options": METHODS[method]}, init_from=str(checkpoint)
    ).eval()
    data = MetaTokenDataModule(
        block_size=LENGTH,
        batch_size=TOKENS // LENGTH,
        meta_fraction=0.1 if arm == "meta" else 0.0,
        seed=seed,
        corpus="python-stdlib",
        vocab_size=model.config.vocab_size,
    )
    data.setup("validate")
    model.check_data(data)
    rows = []
    for multiple in MULTIPLES:
        losses: list[float] = []
        for batch in data.context_batches(multiple, windows=windows, largest=FACTOR):
            scored_B = (batch.targets_BT >= 0).sum(dim=1)
            losses += (model.nll(batch).double().sum(dim=1) / scored_B).tolist()
        # All blocks hold nearly the same number of source tokens; the mean over blocks is the mean over tokens.
        error = float(np.std(losses, ddof=1) / np.sqrt(len(losses)))
        rows.append(Row(*case, multiple, multiple * LENGTH, float(np.mean(losses)), error))
    return rows


def read(path: Path) -> list[Row]:
    """The measurements that there are."""
    if not path.exists():
        return []
    kinds = {field.name: field.type for field in fields(Row)}
    with path.open(newline="") as file:
        return [Row(**{key: kinds[key](value) for key, value in line.items()}) for line in csv.DictReader(file)]  # type: ignore[operator]


def write(path: Path, rows: list[Row]) -> None:
    """Write all measurements."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(field.name for field in fields(Row))]
    for row in rows:
        lines.append(",".join(f"{v:.5f}" if isinstance(v, float) else str(v) for v in asdict(row).values()))
    write_atomically(path, "\n".join(lines) + "\n")


def draw(rows: list[Row], path: Path) -> None:
    """One panel an arm: loss by length, dashed as it is, solid after the fine-tune; bands from seed to seed."""
    arms = sorted({row.arm for row in rows})
    figure, axes = plt.subplots(1, len(arms), figsize=(5 * len(arms), 4.4), sharey=True, squeeze=False)
    lengths = [multiple * LENGTH for multiple in MULTIPLES]
    for axis, arm in zip(axes[0], arms, strict=True):
        for method, colour in zip(METHODS, (GREY, ORANGE, BLUE, GREEN, SKY), strict=True):
            for tuned, style in ((False, "--"), (True, "-")):
                chosen = [r for r in rows if (r.arm, r.method, r.tune_steps > 0) == (arm, method, tuned)]
                seeds = [[r.nats for r in chosen if r.length == length] for length in lengths]
                if chosen:
                    label = method if tuned else None
                    axis.plot(lengths, [np.mean(n) for n in seeds], style, color=colour, marker=".", label=label)
                    low, high = [min(n) for n in seeds], [max(n) for n in seeds]
                    axis.fill_between(lengths, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.set_xscale("log", base=2)
        axis.set_xticks(lengths, [str(length) for length in lengths])
        axis.set_xlabel(f"context [tokens], trained at {LENGTH}")
        axis.set_title(f"{arm} arm", fontsize=10)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("nats per source token")
    seeds_shown, steps = len({row.seed for row in rows}), max(row.tune_steps for row in rows)
    figure.suptitle(
        f"YaRN loses least at four times the context: as it is (--), after {steps} steps (solid); {seeds_shown} seeds",
        fontsize=11,
    )
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
