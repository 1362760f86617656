"""Run folders as `fit` writes them, with the numbers that a test wants."""

import json
from pathlib import Path
from typing import Any

import yaml

EXACT = "accuracy/exact/val"
ARMS: dict[str, dict[str, Any]] = {
    "plain": {"mechanism": "none", "placement": "none"},
    "pause": {"mechanism": "none", "placement": "hint"},
    "meta": {"mechanism": "meta", "placement": "hint"},
}


def write_run(
    folder: Path,
    arm: str = "meta",
    *,
    seed: int = 1,
    values: list[float],
    tokens_a_step: float = 100,
    flops_a_token: float = 10.0,
    parameters: int = 1000,
    metric: str = EXACT,
    config: dict[str, Any] | None = None,
    last: dict[str, float] | None = None,
    scored: str | None = None,
    told: dict[str, Any] | None = None,
) -> Path:
    """Write a run folder as `fit` does: a validation every 10 steps, each with the next of `values`; then `last`.

    Args:
        scored: fingerprint of the text that it was scored on.
        told: what else arm.json says.
    """
    folder.mkdir(parents=True)
    flat = {
        "data": {"task": "parity", "task_options": {"n_bits": [2, 8]}, "meta_placement": ARMS[arm]["placement"]}
        | {"meta_fraction": 0.1, "validation_examples": 263, "seed": seed, "batch_size": 64},
        "model": {"d_ff": None, "init_from": None, "mechanism": ARMS[arm]["mechanism"]},
        "trainer": {"max_steps": 10 * len(values), "precision": "auto"},
        "seed_everything": seed,
        "run_dir": str(folder),
    }
    for key, value in (config or {}).items():
        group, _, name = key.partition(".")
        flat[group][name] = value  # type: ignore[index]
    (folder / "config.yaml").write_text(yaml.safe_dump(flat))
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    card: dict[str, Any] = {"arm": arm, "differs": ARMS[arm], "parameters": parameters}
    if scored is not None:
        card["scored_text"] = {"fingerprint": scored, "targets": 48960, "bytes_per_target": 2.562}
    (folder / "arm.json").write_text(json.dumps({**card, **(told or {})}))
    lines: list[dict[str, Any]] = []
    for i, value in enumerate(values):
        step = 10 * (i + 1)
        lines.append({"step": step, "loss/train": 1.0 / step})
        lines.append({"step": step, "loss/val": 1.0, metric: value})
        tokens = step * tokens_a_step
        lines.append({"step": step, "budget/source_tokens": tokens, "budget/flops": tokens * flops_a_token})
    if last:
        lines.append({"step": 10 * len(values), **last})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
