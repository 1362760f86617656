"""A training step of each arm and of every peer, in turn, on the same tokens.

    python -m benchmarks.step [--shapes "L4 d256" ...]

plain reads text as the peers do; pause and meta read the same number of tokens, a tenth of which are meta-tokens that
are not scored. `floor` is the ratio of the FLOPs that the arms need (`flops_per_token`).
"""

from collections.abc import Callable
from typing import Any

from benchmarks import harness, ours, peers

OURS = {"plain": "none", "pause": "none", "meta": "meta"}
PAIRS = [("plain", "nanogpt"), ("meta", "nanogpt"), ("pause", "nanogpt"), ("meta", "pause")]
PAIRS += [(name, "nanogpt") for name in peers.NAMES[1:]]

REPEATS = {"micro": 40, "L4 d128": 2}
"""Steps of a way in a round: short ones are not timed one by one."""


def main() -> None:
    """Measure and keep."""
    parser = harness.parser(__doc__)
    parser.add_argument("--shapes", nargs="+", choices=list(ours.SHAPES), default=list(ours.SHAPES))
    options = parser.parse_args()
    harness.begin(options)
    rows: list[dict[str, Any]] = []
    for name in ["micro"] if options.quick else options.shapes:
        shape = ours.SHAPES[name]
        tokens_BT, meta_mask_BT = ours.text(shape, ours.BATCH[name])
        ways: dict[str, Callable[[], None]] = {}
        per_token = {}
        for peer in peers.NAMES:
            if (built := peers.build(peer, shape)) is not None:
                model, loss, _ = built
                ways[peer] = ours.training_step(model, loss, tokens_BT, ours.targets_of(tokens_BT, None))
        for arm, mechanism in OURS.items():
            mask_BT = None if arm == "plain" else meta_mask_BT
            own = ours.model_of(shape, mechanism=mechanism)
            per_token[arm] = own.flops_per_token(shape["max_positions"], 0.0 if mask_BT is None else ours.FRACTION)
            targets_BT = ours.targets_of(tokens_BT, mask_BT)
            ways[arm] = ours.training_step(own, ours.loss_of(own, mask_BT), tokens_BT, targets_BT)
        seconds = harness.in_turn(ways, options.rounds, repeats=REPEATS.get(name, 1))
        for row in harness.rows_of(seconds, PAIRS):
            floor = round(per_token["meta"] / per_token["pause"], 3) if row["what"] == "meta / pause" else None
            rows.append({"shape": name, **row, **({} if floor is None else {"floor": floor})})
    harness.finish("step", rows, options)


if __name__ == "__main__":
    main()
