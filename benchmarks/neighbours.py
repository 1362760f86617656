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

from benchmarks import harness, ours
from lightning_metatok.data.injection import Injected, InjectionRule

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


def injected(data: dict[str, Any], n_source: int, batch: int = 1) -> Injected:
    """Texts of `n_source` random tokens of source, with the meta-tokens that an arm's data say."""
    rule = InjectionRule(data["meta_fraction"], data["meta_placement"], options=data["meta_placement_options"])
    meta_id = SHAPE["vocab_size"] - 1
    source_BS = torch.randint(meta_id, (batch, n_source))
    return rule.apply(source_BS, block_length=n_source, meta_id=meta_id, seed=0, index=0)


def step_of(arm: str, n_source: int) -> Callable[[], None]:
    """A function that makes one training step of an arm."""
    settings = settings_of(arm)
    texts = injected(settings["data"], n_source, BATCH)
    tokens_BT = texts.tokens_BT
    mask_BT = texts.meta_mask_BT if bool(texts.meta_mask_BT.any()) else None
    model = ours.model_of({**SHAPE, "max_positions": 2 * tokens_BT.shape[1]}, **settings["model"])
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
