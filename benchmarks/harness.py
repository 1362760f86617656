"""How everything here is timed: in turn, in one run, as ratios.

    A B C, A B C, ...    each round runs every way once, so that a busy machine slows all alike
    ratio                of a way to the first, round by round; the median, and the quartiles as its spread

The clock is CPU time of this process on a CPU (a neighbour's turn does not count) and wall time on CUDA. Peak memory is
that of a process of its own, less what it held before the first step.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
ROUNDS, WARM_UP = 9, 2
MEBIBYTE = 2**20


def in_turn(
    ways: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = WARM_UP, repeats: int = 1
) -> dict[str, list[float]]:
    """Seconds of each way in each round, the mean of `repeats`; `warm_up` rounds before them are not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(warm_up + rounds):
        for name, way in ways.items():
            start = now()
            for _ in range(repeats):
                way()
            if i >= warm_up:
                seconds[name].append((now() - start) / repeats)
    return seconds


def now() -> float:
    """Seconds on the clock that counts."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of ours / theirs, round by round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return {"ratio": round(median, 4), "low": round(low, 4), "high": round(high, 4), "rounds": len(ratios)}


def rows_of(seconds: Mapping[str, Sequence[float]], pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """A row for each pair (way, what it is compared with) that was measured."""
    return [
        {"what": f"{a} / {b}", **ratio(seconds[a], seconds[b]), "ms": round(1e3 * statistics.median(seconds[a]), 1)}
        for a, b in pairs
        if a in seconds and b in seconds
    ]


def peak_mebibytes(module: str, *arguments: str, limit_s: float = 120.0) -> float | None:
    """What `python -m module arguments` prints last: its own `held_at_most`; None if it fails or takes too long."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed is given back: peaks are true
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=limit_s, check=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as failed:
        print(f"{' '.join(arguments)}: {failed}", file=sys.stderr)
        return None
    return float(done.stdout.split()[-1])


def held_at_most(step: Callable[[], Any], device: str = "cpu") -> float:
    """Peak MiB of `step`, beyond what this process held before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / MEBIBYTE
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    step()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def parser(doc: str | None, rounds: int = ROUNDS) -> argparse.ArgumentParser:
    """Options that all benchmarks have."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help="each way is run so often, in turn")
    made.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "1")))
    made.add_argument("--quick", action="store_true", help="tiny shapes, to see that it runs; nothing is kept")
    return made


def begin(options: argparse.Namespace) -> None:
    """Set up torch."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)


def finish(name: str, rows: Sequence[Mapping[str, Any]], options: argparse.Namespace, **more: Any) -> None:
    """Print the rows, and keep them in ``results/NAME.json`` unless the run was a quick one."""
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if options.quick:
        return
    RESULTS.mkdir(exist_ok=True)
    found = {"machine": machine(options.threads), **more, "rows": list(rows)}
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"kept in {RESULTS}/{name}.json; `make docs-tables` writes docs/performance.md anew")


def machine(threads: int) -> dict[str, Any]:
    """Where it was measured, and how busy it was at the end."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": torch.cuda.get_device_name() if torch.cuda.is_available() else model or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),
    }
