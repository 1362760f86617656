"""T5's attention temperature on a trained model: which one reads best at which length.

    python -m benchmarks.t5_temperature RUN [RUN ...]

Each RUN is a run folder of a model with position=t5 (those of sweeps/length_extrapolation.yaml). Its last checkpoint
reads the same held-out windows at 1, 4 and 16 times the trained length with every temperature; a temperature below 1
sharpens attention that long inputs make flat (Chi, Fan, Rudnicky 2023, arXiv 2311.00684). Prints nats per source token,
the mean over the runs.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import yaml

from lightning_metatok.lit import MetaTokenDataModule, MetaTokenLM
from lightning_metatok.lit.checkpoints.io import read_state

TEMPERATURES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6)
MULTIPLES = (1, 4, 16)


@torch.no_grad()
def measure(run: Path, windows: int) -> list[list[float]]:
    """Loss by temperature and length [nats per source token]."""
    checkpoint = run / "checkpoints" / "last.ckpt"
    hyperparameters = read_state(checkpoint, key="checkpoint")["hyper_parameters"]
    config = yaml.safe_load((run / "config.yaml").read_text())
    names = ("corpus", "vocab_size", "block_size", "batch_size", "meta_fraction", "meta_length", "seed")
    data = MetaTokenDataModule(**{name: config["data"][name] for name in names})
    data.setup("validate")
    losses = []
    for temperature in TEMPERATURES:
        options = {**hyperparameters["position_options"], "temperature": temperature}
        model = MetaTokenLM(**{**hyperparameters, "position_options": options}, init_from=str(checkpoint)).eval()
        model.check_data(data)
        losses.append([])
        for multiple in MULTIPLES:
            nats = tokens = 0.0
            for batch in data.context_batches(multiple, windows=windows, largest=max(MULTIPLES)):
                nats += float(model.nll(batch).double().sum())
                tokens += int((batch.targets_BT >= 0).sum())
            losses[-1].append(nats / tokens)
    return losses


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Loss of T5 positions by attention temperature and length.")
    parser.add_argument("runs", nargs="+", type=Path, help="run folders with position=t5")
    parser.add_argument("--windows", type=int, default=8, help="windows of the longest context")
    options = parser.parse_args()
    torch.set_num_threads(1)
    losses = np.mean([measure(run, options.windows) for run in options.runs], axis=0)
    print("| temperature | " + " | ".join(f"{m}x" for m in MULTIPLES) + " |\n" + "|---" * (len(MULTIPLES) + 1) + "|")
    for temperature, row in zip(TEMPERATURES, losses, strict=True):
        print(f"| {temperature} | " + " | ".join(f"{nats:.3f}" for nats in row) + " |")


if __name__ == "__main__":
    main()
