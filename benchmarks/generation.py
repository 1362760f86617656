"""Greedy continuation of a prompt, of each arm and of every peer, in turn: 128 tokens behind 128, GPT-2 small.

    python -m benchmarks.generation [--peers nanogpt ...]

`floor`: the time that reading all weights once a token takes, by a product of a matrix of that size with a vector in
the same rounds, as a share of the time taken. nanoGPT has no cache, so it is left out unless it is asked for.
"""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks import harness, ours, peers
from lightning_metatok.model.generate import generate


def main() -> None:
    """Measure and keep."""
    parser = harness.parser(__doc__, rounds=7)
    parser.add_argument("--peers", nargs="+", choices=peers.NAMES, default=["huggingface", "litgpt"])
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=128)
    options = parser.parse_args()
    harness.begin(options)
    name = "micro" if options.quick else "GPT-2 small"
    prompt, new = (16, 8) if options.quick else (options.prompt, options.new)
    shape = {**ours.SHAPES[name], "max_positions": prompt + new}
    tokens_BT = torch.randint(shape["vocab_size"], (1, prompt))
    mask_BT = torch.rand(1, prompt).argsort(dim=1) < int(ours.FRACTION * prompt)
    ways: dict[str, Callable[[], Any]] = {}
    for peer in options.peers:
        if (built := peers.build(peer, shape)) is not None:
            model, _, greedy = built
            model.eval()
            ways[peer] = lambda greedy=greedy: greedy(tokens_BT, new)  # type: ignore[misc]
    n_weights = 0
    for arm, mask in (("plain", None), ("meta", mask_BT)):
        own = ours.model_of(shape, mechanism="meta" if arm == "meta" else "none")
        n_weights = n_weights or own.n_parameters()
        ways[arm] = lambda own=own, mask=mask: generate(  # type: ignore[misc]
            own, tokens_BT, mask, max_new_tokens=new, temperature=0.0
        )
    matrix, vector = torch.randn(n_weights // 768, 768), torch.randn(768)

    def read_all() -> None:
        for _ in range(new):
            torch.mv(matrix, vector)

    ways["weights"] = read_all
    seconds = harness.in_turn(ways, options.rounds, warm_up=1)
    pairs = [(arm, peer) for arm in ("plain", "meta") for peer in ("huggingface", "litgpt", "nanogpt")]
    rows = harness.rows_of(seconds, [*pairs, ("weights", "plain")])
    harness.finish("generation", [{"shape": f"{name}, {prompt} + {new}", **row} for row in rows], options)


if __name__ == "__main__":
    main()
