"""Tokens a second with everybody's defaults, in turn: what somebody gets who tunes nothing.

    python -m benchmarks.out_of_the_box

ours         what `lightning-metatok fit` chooses, in a bare loop: precision auto, glibc's allocator set, loss in chunks
nanogpt      train.py on a CPU: float32, torch.compile off, as its README says for macbooks and cheap machines
huggingface  Trainer with its default TrainingArguments: float32, AdamW fused, a step a batch of eight
litgpt       pretrain: left out, its requirements (jsonargparse <= 4.41, huggingface_hub < 1.4) exclude this project's

Each way is a process of its own, because allocators are set before torch is loaded; a figure is the median over rounds
of the time of a step behind the first three.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

STEPS, SKIPPED = 8, 3
WAYS = ("nanogpt", "ours, plain", "ours, meta", "huggingface")


def steps_of(way: str, name: str, steps: int) -> list[float]:
    """CPU seconds of each step of a way, in this process, which must not have torch loaded yet."""
    assert "torch" not in sys.modules
    if way.startswith("ours"):
        from lightning_metatok import runtime

        runtime.prepare()
    import torch

    from benchmarks import ours, peers

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    shape, batch = ours.SHAPES[name], ours.BATCH[name]
    tokens_BT, mask_BT = ours.text(shape, batch)
    if way == "huggingface":
        return trainer_of_huggingface(shape, tokens_BT, steps)
    if way == "nanogpt":
        built = peers.build("nanogpt", shape)
        assert built is not None
        model, loss, _ = built
        step = ours.training_step(model, loss, tokens_BT, ours.targets_of(tokens_BT, None))
    else:
        step = our_step(way, shape, tokens_BT, mask_BT)
    return timed(step, steps)


def our_step(way: str, shape: dict[str, int], tokens_BT: Any, mask_BT: Any) -> Callable[[], None]:
    """A step of an arm under the precision that `auto` takes here."""
    import torch

    from benchmarks import ours
    from lightning_metatok.runtime import resolve_precision

    meta = way == "ours, meta"
    model = ours.model_of(shape, mechanism="meta" if meta else "none")
    half = resolve_precision("auto") == "bf16-mixed"
    of = ours.loss_of(model, mask_BT if meta else None)

    def loss(tokens: Any, targets: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return of(tokens, targets)

    return ours.training_step(model, loss, tokens_BT, ours.targets_of(tokens_BT, mask_BT if meta else None))


def timed(step: Callable[[], None], steps: int) -> list[float]:
    """CPU seconds of each of `steps` calls behind the first."""
    seconds = []
    for i in range(steps + SKIPPED):
        start = time.process_time()
        step()
        if i >= SKIPPED:
            seconds.append(time.process_time() - start)
    return seconds


def trainer_of_huggingface(shape: dict[str, int], tokens_BT: Any, steps: int) -> list[float]:
    """The same of `transformers.Trainer`."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from benchmarks import peers

    built = peers.build("huggingface", shape)
    assert built is not None
    starts: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            starts.append(time.process_time())

    rows = [{"input_ids": row, "labels": row} for row in tokens_BT] * (steps + SKIPPED + 1)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=steps + SKIPPED + 1, per_device_train_batch_size=len(tokens_BT), use_cpu=True,
            report_to=[], disable_tqdm=True, save_strategy="no",
        )  # fmt: skip
        Trainer(built[0], arguments, train_dataset=rows, callbacks=[Clock()]).train()  # type: ignore[arg-type]
    return [b - a for a, b in zip(starts[SKIPPED:], starts[SKIPPED + 1 :], strict=False)]


def in_fresh_process(way: str, name: str, steps: int, threads: int) -> float:
    """Median seconds of a step."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    environment |= {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "benchmarks.out_of_the_box", "--way", way, "--shape", name, "--steps", str(steps)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(statistics.median(json.loads(done.stdout.splitlines()[-1])))


def main() -> None:
    """Measure and keep."""
    options = argparse.ArgumentParser(description=argparse.SUPPRESS, add_help=False)
    options.add_argument("--way", choices=WAYS)
    options.add_argument("--shape", default="L4 d256")
    options.add_argument("--steps", type=int, default=STEPS)
    child, rest = options.parse_known_args()
    if child.way:
        print(json.dumps(steps_of(child.way, child.shape, child.steps)))
        return
    from benchmarks import harness, ours

    given = harness.parser(__doc__, rounds=7).parse_args(rest)
    name, rounds = ("micro", 2) if given.quick else (child.shape, given.rounds)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            seconds[way].append(in_fresh_process(way, name, child.steps, given.threads))
    tokens = ours.BATCH[name] * ours.SHAPES[name]["max_positions"]
    pairs = [("ours, plain", "nanogpt"), ("ours, meta", "nanogpt"), ("huggingface", "nanogpt")]
    rows = [
        {"shape": name, **row, "tokens/s": round(tokens / statistics.median(seconds[row["what"].partition(" / ")[0]]))}
        for row in harness.rows_of(seconds, pairs)
    ]
    harness.finish("out_of_the_box", rows, given)


if __name__ == "__main__":
    main()
