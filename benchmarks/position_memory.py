"""Peak memory and time of attention under each positional encoding that acts on scores, against rotary, on this CPU.

    python -m benchmarks.position_memory [--length 8192] [--heads 8] [--families alibi t5] [--rounds 1]

One attention of the backend that `auto` takes, forward and backward. A process's peak never falls, so each measurement
is a fresh process, which reports how far its peak resident memory rose above what it held before (after a small warm-up
that loads the kernels); the whole peak, torch included, stands beside it. `reference` rows show what all T x T scores
cost; they are left out where those alone would need more than `--limit_gb`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

HEAD_DIM = 64


def measure(name: str, length: int, heads: int, backend: str) -> dict[str, float]:
    """Rise of the peak and whole peak, in MB, and CPU seconds of one forward and backward pass in this process."""
    import torch

    from lightning_metatok.model import positions
    from lightning_metatok.model.attention import backends
    from lightning_metatok.model.attention.backends.reference import Score

    torch.set_num_threads(1)
    sizes = {"n_layers": 1, "n_heads": heads, "head_dim": HEAD_DIM, "d_model": heads * HEAD_DIM}
    family = positions.build(name, max_positions=length, **sizes)

    def once(T: int) -> None:
        torch.manual_seed(0)
        q, k, v = (torch.randn(1, heads, T, HEAD_DIM, requires_grad=True) for _ in range(3))
        ids_1T = torch.arange(T)[None]
        score = None
        if family.transforms_scores:
            score = Score(lambda scores, rows: family.score(scores, ids_1T, None, rows=rows), (*family.parameters(),))
        chosen = backends.choose(backend, device=q.device, dtype=q.dtype, score=score is not None)
        turned_q, turned_k = family.rotate(q, k, ids_1T, None)
        chosen.attend(turned_q, turned_k, v, score=score).sum().backward()

    once(64)
    before, start = peak_mb(), time.process_time()
    once(length)
    return {"rise": peak_mb() - before, "peak": peak_mb(), "seconds": time.process_time() - start}


def peak_mb() -> float:
    """Largest resident memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def in_fresh_process(name: str, backend: str, options: argparse.Namespace) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.position_memory", "--families", name, "--child", backend]
    command += ["--length", str(options.length), "--heads", str(options.heads)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    """Measure the families in turn and print megabytes, seconds and ratios to rotary."""
    from lightning_metatok.model.positions import FAMILIES

    acting = [name for name, family in FAMILIES.items() if family.transforms_scores]
    parser = argparse.ArgumentParser(description="Memory and time of encodings that act on scores, against rotary.")
    parser.add_argument("--length", type=int, default=8192, help="positions T")
    parser.add_argument("--heads", type=int, default=8, help=f"heads of {HEAD_DIM} dimensions")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=acting, help="families beside rotary")
    parser.add_argument("--rounds", type=int, default=1, help="processes for each row; medians are shown")
    parser.add_argument("--limit_gb", type=float, default=8, help="leave `reference` out where T x T need more")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.families[0], options.length, options.heads, options.child)))
        return

    # Scores, their bias, mask, weights and gradients: about ten tensors of T x T a head.
    whole_gb = 10 * 4 * options.heads * options.length**2 / 2**30
    rows = [("rotary", "auto"), *((name, "auto") for name in options.families if name != "rotary")]
    if whole_gb <= options.limit_gb:
        rows += [(name, "reference") for name in options.families if FAMILIES[name].transforms_scores]
    print(f"T={options.length}, {options.heads} heads of {HEAD_DIM}, float32, one thread, {options.rounds} rounds")
    print(f"{'family':16} {'backend':10} {'rise MB':>8} {'/ rotary':>8} {'peak MB':>8} {'CPU s':>7} {'/ rotary':>8}")
    rotary: dict[str, float] = {}
    for name, backend in rows:
        rounds = [in_fresh_process(name, backend, options) for _ in range(options.rounds)]
        row = {key: statistics.median(measured[key] for measured in rounds) for key in rounds[0]}
        rotary = rotary or row
        ratios = row["rise"] / rotary["rise"], row["seconds"] / rotary["seconds"]
        print(
            f"{name:16} {backend:10} {row['rise']:8.0f} {ratios[0]:8.2f} {row['peak']:8.0f} {row['seconds']:7.1f} "
            f"{ratios[1]:8.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
