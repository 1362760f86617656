"""Training speed on this CPU: what the allocator setting and bf16 are worth, as ratios measured in one run.

    python -m benchmarks.cpu_speed [--threads 2] [--rounds 5] [--force-bf16]

Allocator settings hold for a whole process, so each measurement is a fresh process. The variants take turns
(A B C D, A B C D, ...), so that a slow minute of the machine hits all of them; each row is the median of its
rounds. bf16 is measured where the CPU computes it in hardware, elsewhere with --force-bf16 only.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from lightning_metatok import runtime

VARIANTS = {
    "defaults": (),
    "allocator": ("allocator",),
    "bf16": ("bf16",),
    "allocator + bf16": ("allocator", "bf16"),
}
N_LAYERS, N_HEADS, D_MODEL, T, B, V = 4, 4, 256, 256, 16, 2048
META_FRACTION = 0.1


def training_seconds_per_step(settings: tuple[str, ...], threads: int, steps: int) -> float:
    """Return the median seconds of a training step in this process, which must not have torch loaded yet."""
    assert "torch" not in sys.modules
    if "allocator" in settings:
        assert runtime.tune_allocator(), "the C library refused, or the environment already tunes malloc"
    import torch
    from torch.nn.functional import cross_entropy

    from lightning_metatok.model import MetaTransformer, TransformerConfig

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = MetaTransformer(
        TransformerConfig(n_layers=N_LAYERS, n_heads=N_HEADS, d_model=D_MODEL, vocab_size=V, max_positions=T)
    )
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    tokens_BT = torch.randint(V, (B, T))
    targets_BT = torch.randint(V, (B, T))
    meta_mask_BT = torch.rand(B, T).argsort(dim=1) < int(META_FRACTION * T)

    seconds = []
    for _ in range(2 + steps):  # two to warm up
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in settings):
            logits_BTV = model(tokens_BT, meta_mask_BT)
        cross_entropy(logits_BTV.float().flatten(0, 1), targets_BT.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def measure_in_fresh_process(variant: str, threads: int, steps: int) -> float:
    """Return the seconds of a step that a fresh process with the settings of `variant` needs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment |= {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "benchmarks.cpu_speed", "--variant", variant]
    command += ["--threads", str(threads), "--steps", str(steps)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout))


def main() -> None:
    """Measure all variants in turn and print tokens per second and ratios to the defaults."""
    parser = argparse.ArgumentParser(description="Training speed on this CPU, as ratios measured in one run.")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of each process")
    parser.add_argument("--rounds", type=int, default=5, help="processes for each variant")
    parser.add_argument("--steps", type=int, default=5, help="measured steps in each process")
    parser.add_argument("--force-bf16", action="store_true", help="measure bf16 where it is emulated, too")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)  # the child process
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(training_seconds_per_step(VARIANTS[options.variant], options.threads, options.steps)))
        return

    with_bf16 = runtime.cpu_has_bf16() or options.force_bf16
    if not with_bf16:
        print("bf16 left out: this CPU has no bf16 instructions (--force-bf16 measures it all the same)")
    variants = [name for name, settings in VARIANTS.items() if with_bf16 or "bf16" not in settings]
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    for _ in range(options.rounds):
        for variant in variants:
            seconds[variant].append(measure_in_fresh_process(variant, options.threads, options.steps))

    print(f"L{N_LAYERS} d{D_MODEL} T{T} B{B} V{V}, {META_FRACTION:.0%} meta-tokens, {options.threads} threads")
    print(f"{'variant':<18}{'tokens/s':>10}{'time, defaults = 1':>21}{'spread':>9}")
    for variant in variants:
        typical = statistics.median(seconds[variant])
        pairs = zip(seconds[variant], seconds["defaults"], strict=True)
        ratio = statistics.median(ours / defaults for ours, defaults in pairs)
        spread = (max(seconds[variant]) - min(seconds[variant])) / typical
        print(f"{variant:<18}{B * T / typical:>10,.0f}{ratio:>21.3f}{spread:>9.0%}")


if __name__ == "__main__":
    main()
