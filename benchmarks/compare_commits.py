"""Train the same seed on two commits and say whether they are bit-equal, or the first step at which they differ.

    python benchmarks/compare_commits.py f6850da HEAD --config conf/debug.yaml [--trainer.max_steps=20 ...]

A refactor promises that nothing measurable changes; this shows it. Each commit is checked out into a worktree of its
own and runs `lightning-metatok fit` from there, with ITS copy of the configuration, in a fresh process; unknown options
are handed on to both. Compared are the training loss and the gradient norm of every step, every validation and test
number, and the bits of the final weights. Times are not compared. Parameters that have another name in one commit are
compared by their contents.

Exit code: 0 bit-equal, 1 they differ, 2 a run could not be made.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
TIMED = ("throughput/", "time/")
"""What a clock or the machine's load says."""


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """Give a worktree of `commit` in `folder`, and take it away again."""
    git = ["git", "-C", str(ROOT), "worktree"]
    done = subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{commit}: {done.stderr.strip().splitlines()[-1]}")
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def train(tree: Path, configs: list[str], options: list[str], run_dir: Path) -> None:
    """Run `fit` on the code in `tree`, logging every step."""
    command = [sys.executable, "-P", "-m", "lightning_metatok", "fit", *(f"--config={tree / c}" for c in configs)]
    command += ["--trainer.log_every_n_steps=1", "--throughput.window=2", *options, f"--run_dir={run_dir}"]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise SystemExit(2)


def rows(run_dir: Path) -> dict[tuple[int, str], float]:
    """Every number that was logged and that no clock has made, by step and name."""
    found = {}
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        record: dict[str, Any] = json.loads(line)
        step = record.pop("step")
        for name, value in record.items():
            if not name.startswith(TIMED) and isinstance(value, int | float):
                found[step, name] = value
    return found


def weights(run_dir: Path) -> dict[str, str]:
    """A digest of each final weight's shape, type and bits, by its name."""
    state = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True, mmap=True)["state_dict"]
    return {
        name: hashlib.sha256(
            f"{x.shape} {x.dtype}".encode() + x.contiguous().view(torch.uint8).numpy().tobytes()
        ).hexdigest()
        for name, x in state.items()
    }


def differences(first: Path, second: Path) -> list[str]:
    """What differs between two runs, earliest step first; empty: bit-equal."""
    a, b = rows(first), rows(second)
    both = sorted(a.keys() & b.keys())
    if not both:
        return ["no number was logged by both"]
    # Equal bits, as JSON keeps the shortest text that a float is read back from; NaN is written as text.
    found = [
        f"step {step}: {name} {a[step, name]!r} and {b[step, name]!r}"
        for step, name in both
        if a[step, name] != b[step, name]
    ]
    for one, other, which in ((a, b, "first"), (b, a, "second")):
        if lacking := sorted({name for _, name in one.keys() - other.keys()}):
            found.append(f"only the {which} logs all of {', '.join(lacking)}")
    v, w = weights(first), weights(second)
    if sorted(v.values()) != sorted(w.values()):
        names = sorted(name for name in v.keys() | w.keys() if v.get(name) != w.get(name))
        found.append(f"final weights: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}")
    return found


def main() -> int:
    """Compare two commits; the docstring of this file says how."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", help="a commit, such as HEAD~1")
    parser.add_argument("second", help="another commit")
    parser.add_argument("-c", "--config", action="append", required=True, help="a file of both commits; repeatable")
    known, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="compare-commits-") as scratch:
        runs = []
        for number, commit in enumerate((known.first, known.second)):
            run_dir = Path(scratch, f"run-{number}")
            with checked_out(commit, Path(scratch, f"tree-{number}")) as tree:
                train(tree, known.config, options, run_dir)
            runs.append(run_dir)
        steps = max(step for step, _ in rows(runs[0]))
        found = differences(*runs)
    what = f"{known.first} and {known.second}, {' '.join(known.config)}"
    if not found:
        print(f"{what}: bit-equal over {steps} steps and in the final weights")
        return 0
    print(f"{what}: NOT equal; first: {found[0]}")
    for line in found[1:10]:
        print(f"  {line}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
