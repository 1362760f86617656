"""Peak memory of a step's forward and backward pass, each in a process of its own.

    python -m benchmarks.memory

whole      the loss of all logits at once: what chunks replace
checkpointed  blocks computed again in the backward pass (`model.activation_checkpointing`)
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks import harness, ours

NANO = {"n_layers": 4, "n_heads": 4, "d_model": 128}
VOCABULARY = 50257
WINDOW = {"pattern": "window_meta", "pattern_options": {"w": 256}, "mechanism": "none"}
CASES: dict[str, tuple[int, int, int, dict[str, Any], bool]] = {
    # T, B, V, the model, whether the loss is the whole one
    "V 50,257, T 4,096": (4096, 1, VOCABULARY, {"mechanism": "none"}, False),
    "V 50,257, T 4,096, whole": (4096, 1, VOCABULARY, {"mechanism": "none"}, True),
    "V 50,257, T 1,024, B 8": (1024, 8, VOCABULARY, {"mechanism": "none"}, False),
    "V 50,257, T 1,024, B 8, whole": (1024, 8, VOCABULARY, {"mechanism": "none"}, True),
    "T 4,096, meta": (4096, 1, 1024, {"mechanism": "meta"}, False),
    "T 8,192, meta": (8192, 1, 1024, {"mechanism": "meta"}, False),
    "T 8,192, meta, checkpointed": (8192, 1, 1024, {"mechanism": "meta", "activation_checkpointing": True}, False),
    "T 4,096, window_meta 256": (4096, 1, 1024, WINDOW, False),
    "T 8,192, window_meta 256": (8192, 1, 1024, WINDOW, False),
    "T 32,768, window_meta 256": (32768, 1, 1024, WINDOW, False),
}
PAIRS = [
    ("V 50,257, T 4,096", "V 50,257, T 4,096, whole"),
    ("V 50,257, T 1,024, B 8", "V 50,257, T 1,024, B 8, whole"),
    ("T 8,192, meta", "T 4,096, meta"),
    ("T 8,192, meta, checkpointed", "T 8,192, meta"),
    ("T 8,192, window_meta 256", "T 4,096, window_meta 256"),
]


def step_of(case: str) -> Callable[[], None]:
    """A function that makes the forward and backward pass of a case; weights, tokens and gradients stand already."""
    T, B, V, switches, whole = CASES[case]
    shape = {**NANO, "vocab_size": V, "max_positions": T}
    model = ours.model_of(shape, **switches)
    tokens_BT, mask_BT = ours.text(shape, B)
    targets_BT = ours.targets_of(tokens_BT, mask_BT)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    loss = ours.loss_of(model, mask_BT)

    def step() -> None:
        if whole:
            logits_BTV = model(tokens_BT, mask_BT)
            F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten()).backward()
        else:
            loss(tokens_BT, targets_BT).backward()

    return step


def main() -> None:
    """Measure and keep."""
    parser = harness.parser(__doc__)
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)  # the process of its own
    options = parser.parse_args()
    harness.begin(options)
    if options.case:
        print(harness.held_at_most(step_of(options.case)))
        return
    names = ["T 4,096, meta"] if options.quick else list(CASES)
    peaks = {name: harness.peak_mebibytes("benchmarks.memory", "--case", name) for name in names}
    rows: list[dict[str, Any]] = [
        {"what": name, "MiB": "no answer in 2 minutes" if peak is None else round(peak)} for name, peak in peaks.items()
    ]
    measured = {name: peak for name, peak in peaks.items() if peak is not None}
    rows += [
        {"what": f"{a} / {b}", "ratio": round(measured[a] / measured[b], 3)}
        for a, b in PAIRS
        if a in measured and b in measured
    ]
    harness.finish("memory", rows, options)


if __name__ == "__main__":
    main()
