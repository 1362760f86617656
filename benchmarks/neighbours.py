"""A training step of every arm of `sweeps/neighbours.yaml` beside plain, on the same source tokens; its peak memory.

    python -m benchmarks.neighbours

All read 1,024 source tokens a text, at the sweep's marks and window; what marks add to the length is an arm's own cost.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from benchmarks import harness, ours

ROOT = Path(__file__).resolve().parents[1]
SHAPE = {"n_layers": 4, "n_heads": 4, "d_model": 128, "vocab_size": 1024}
N_SOURCE, BATCH = 1024, 4
QUICK = 64
"""Source tokens of a quick run."""


def sweep() -> dict[str, Any]:
    """The sweep that says which arms there are."""
    read: dict[str, Any] = yaml.safe_load((ROOT / "sweeps" / "neighbours.yaml").read_text(encoding="utf-8"))
    return read


def settings_of(arm: str) -> dict[str, dict[str, Any]]:
    """What an arm of the sweep says of `model` and of `data`."""
    whole = sweep()
    said = whole["arms"][arm]
    settings: dict[str, dict[str, Any]] = {"model": {}, "data": {"meta_fraction": 0.1}}
    for name in said["configs"]:
        of_file = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
        for room, its in settings.items():
            its.update(of_file.get(room, {}))
    for key, value in {**whole["set"], **said.get("set", {})}.items():
        room, _, name = key.partition(".")
        if room in settings:
            settings[room][name] = value
    for name in ("n_layers", "d_model"):  # the sweep's size
        settings["model"].pop(name)
    return settings


def marks_of(data: dict[str, Any], n_source: int) -> Tensor:
    """Which places [T] of a text with `n_source` tokens of source are meta-tokens."""
    if data["meta_fraction"] == 0:
        return torch.zeros(n_source, dtype=torch.bool)
    if data["meta_placement"] == "random":
        n_marks = int(data["meta_fraction"] * n_source)
        return torch.rand(n_source + n_marks).argsort() < n_marks
    every = data["meta_placement_options"]["c"]
    return torch.arange(n_source + n_source // every) % (every + 1) == every


def step_of(arm: str, n_source: int) -> Callable[[], None]:
    """A function that makes one training step of an arm."""
    settings = settings_of(arm)
    extra_BT = marks_of(settings["data"], n_source).expand(BATCH, -1)
    T = extra_BT.shape[1]
    model = ours.model_of({**SHAPE, "max_positions": 2 * T}, **settings["model"])
    tokens_BT = torch.randint(SHAPE["vocab_size"], (BATCH, T))
    mask_BT = extra_BT if bool(extra_BT.any()) else None
    step: Callable[[], None] = ours.training_step(
        model, ours.loss_of(model, mask_BT), tokens_BT, ours.targets_of(tokens_BT, mask_BT)
    )
    return step


def main() -> None:
    """Measure and keep."""
    parser = harness.parser(__doc__, rounds=7)
    parser.add_argument("--arm", help=argparse.SUPPRESS)  # the process of its own
    options = parser.parse_args()
    harness.begin(options)
    if options.arm:
        step = step_of(options.arm, N_SOURCE)
        step()  # gradients and moments stand from now on
        print(harness.held_at_most(step))
        return
    n_source = QUICK if options.quick else N_SOURCE
    arms = ["plain", "meta"] if options.quick else list(sweep()["arms"])
    seconds = harness.in_turn({arm: step_of(arm, n_source) for arm in arms}, options.rounds)
    rows = harness.rows_of(seconds, [(arm, "plain") for arm in arms])
    for arm, row in zip(arms, rows, strict=True):
        row["tokens/s"] = round(BATCH * n_source / row["ms"] * 1e3)
        if not options.quick:
            peak = harness.peak_mebibytes("benchmarks.neighbours", "--arm", arm)
            row["MiB"] = None if peak is None else round(peak)
    harness.finish("neighbours", rows, options)


if __name__ == "__main__":
    main()
