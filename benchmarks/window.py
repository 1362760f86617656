"""A step's forward and backward pass at T = 8,192: window_meta with w = 256 against causal, in turn.

    python -m benchmarks.window

Both read the same tokens, a tenth of them extra, in a model of 2 layers of width 128 without a mechanism.
"""

from typing import Any

from benchmarks import harness, ours

SHAPE = {"n_layers": 2, "n_heads": 4, "d_model": 128, "vocab_size": 1024, "max_positions": 8192}
PATTERNS: dict[str, dict[str, Any]] = {
    "causal": {},
    "window 256": {"pattern": "window", "pattern_options": {"w": 256}},
    "window_meta 256": {"pattern": "window_meta", "pattern_options": {"w": 256}},
}


def main() -> None:
    """Measure and keep."""
    options = harness.parser(__doc__, rounds=7).parse_args()
    harness.begin(options)
    shape = {**SHAPE, "max_positions": 512} if options.quick else SHAPE
    tokens_BT, meta_mask_BT = ours.text(shape, 1)
    targets_BT = ours.targets_of(tokens_BT, meta_mask_BT)
    ways = {}
    for name, switches in PATTERNS.items():
        model = ours.model_of(shape, mechanism="none", **switches)
        ways[name] = ours.training_step(model, ours.loss_of(model, meta_mask_BT), tokens_BT, targets_BT)
    seconds = harness.in_turn(ways, options.rounds, warm_up=1)
    rows = harness.rows_of(seconds, [("window 256", "causal"), ("window_meta 256", "causal")])
    harness.finish("window", [{"shape": "2 x 128, T 8,192", **row} for row in rows], options)


if __name__ == "__main__":
    main()
