"""What meta-attention costs: time of a training step with it, relative to the same step without it.

    python benchmarks/meta_overhead.py [--layers 4 --width 256 --length 256 --batch 16 ...]

Three models read the same tokens, meta-tokens included, in turn within one run (A, B, C, A, B, C, ...), so
that a busy machine slows all alike:

    plain    no meta-attention
    meta     the sparse meta-attention of this package
    dense    the same layer as the paper states it: every token projected, a T x T mask in every sample

A step is forward, loss, backward and AdamW (fused). Printed are the median over rounds of each ratio to
plain, the smallest time of each, and the ratio of FLOPs, below which no implementation of the layer can be
expected to get.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_metatok.model import MetaTransformer, TransformerConfig


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 4), ("heads", 4), ("width", 256), ("length", 256), ("batch", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--fraction", type=float, default=0.1, help="of the tokens that are meta-tokens")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="run under bfloat16 autocast")
    parser.add_argument("--varying", action="store_true", help="samples hold different numbers of meta-tokens")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    torch.manual_seed(0)

    shape = (flags.batch, flags.length)
    tokens_BT = torch.randint(flags.vocabulary, shape, device=flags.device)
    places_BT = torch.rand(shape, device=flags.device)
    if flags.varying:
        meta_mask_BT = places_BT < flags.fraction
    else:
        meta_mask_BT = places_BT.argsort(dim=-1) < int(flags.fraction * flags.length)

    switches: dict[str, dict[str, Any]] = {
        "plain": {"mechanism": "none"},
        "meta": {},
        "dense": {"mechanism_options": {"fill": -1e9}},
    }
    steps, models = {}, {}
    for name, switch in switches.items():
        config = TransformerConfig(
            flags.layers, flags.heads, flags.width, flags.vocabulary, max_positions=flags.length, **switch
        )
        models[name] = MetaTransformer(config).to(flags.device)
        steps[name] = training_step(models[name], tokens_BT, meta_mask_BT, flags.bf16)
    times = interleaved(steps, flags.rounds, flags.device)

    flops = {name: m.flops_per_token(flags.length, flags.fraction) for name, m in models.items()}
    print(f"{'arm':8}{'best ms':>10}{'ratio':>9}{'quartiles':>18}{'FLOP ratio':>12}{'parameters':>13}")
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times["plain"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        print(
            f"{name:8}{1e3 * min(seconds):10.1f}{statistics.median(ratios):9.3f}{f'{low:.3f} .. {high:.3f}':>18}"
            f"{flops[name] / flops['plain']:12.3f}{models[name].n_parameters():13,}"
        )


def training_step(model: MetaTransformer, tokens_BT: Tensor, meta_mask_BT: Tensor, bf16: bool) -> Callable[[], None]:
    """A function that does one training step of next-token prediction, meta-tokens not scored."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    targets = tokens_BT.masked_fill(meta_mask_BT, -100)[:, 1:].flatten()

    def step() -> None:
        with torch.autocast(tokens_BT.device.type, torch.bfloat16, enabled=bf16):
            logits_BTV = model(tokens_BT, meta_mask_BT)
            loss = torch.nn.functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def interleaved(steps: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of each step in each round, all steps in turn within a round, after two rounds of warming
    up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(rounds + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device != "cpu":
                torch.cuda.synchronize()
            if i >= 2:
                times[name].append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()
