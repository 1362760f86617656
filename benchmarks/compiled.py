"""torch.compile on this CPU at three shapes: what a step gains, and after how many steps the compiler is paid for.

    python -m benchmarks.compiled

The model is the meta arm; a step is forward, backward, clipping and AdamW. `recompiled` counts graphs made after the
first two steps, over all that were timed.
"""

import time
from typing import Any

import torch
from torch._dynamo.utils import counters

from benchmarks import harness, ours


def main() -> None:
    """Measure and keep."""
    options = harness.parser(__doc__, rounds=7).parse_args()
    harness.begin(options)
    rows: list[dict[str, Any]] = []
    for name in ["micro"] if options.quick else ["micro", "L4 d128", "L4 d256"]:
        shape = ours.SHAPES[name]
        tokens_BT, mask_BT = ours.text(shape, ours.BATCH[name])
        targets_BT = ours.targets_of(tokens_BT, mask_BT)
        torch.compiler.reset()
        ways = {}
        for way in ("eager", "compiled"):
            model = ours.model_of(shape, mechanism="meta")
            if way == "compiled":
                model.compile()
            ways[way] = ours.training_step(model, ours.loss_of(model, mask_BT), tokens_BT, targets_BT)
        start = time.perf_counter()
        ways["compiled"]()
        ways["compiled"]()
        seconds_to_compile = time.perf_counter() - start
        before = counters["stats"]["unique_graphs"]
        seconds = harness.in_turn(ways, options.rounds, repeats=20 if name == "micro" else 1)
        (row,) = harness.rows_of(seconds, [("compiled", "eager")])
        saved = row["ms"] / row["ratio"] - row["ms"]
        rows.append(
            {
                "shape": name,
                **row,
                "compile s": round(seconds_to_compile, 1),
                "pays after steps": round(1e3 * seconds_to_compile / saved) if saved > 0 else "never",
                "recompiled": counters["stats"]["unique_graphs"] - before,
            }
        )
    harness.finish("compiled", rows, options)


if __name__ == "__main__":
    main()
