"""Bounds of options that nothing else checks before a run folder is made: Lightning's, PyTorch's, and callbacks'.

Every number is finite and within `LARGEST`, or what `MOST` says of it: beyond that nothing fails, it only never ends.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lightning_metatok.errors import UserError

LARGEST_SEED = 2**32 - 1
"""NumPy's."""
LONGEST_NAME, LONGEST_PATH = 255, 4096
"""Bytes, on Linux."""


def _is_path(text: str) -> bool:
    parts = os.fsencode(text).split(b"/")
    return "\0" not in text and max(map(len, parts)) <= LONGEST_NAME and len(os.fsencode(text)) < LONGEST_PATH


def _entries(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | dict) else [value]


def _number(low: float, high: float = float("inf"), *, open_end: bool = False) -> Callable[[Any], bool]:
    return lambda value: low <= value < high if open_end else low <= value <= high


COUNT = (_number(1), "1 or more")
SIZE = (_number(0), "0 or more")
SEED = (_number(0, LARGEST_SEED), f"a seed from 0 to {LARGEST_SEED}")
MULTIPLES = (lambda given: bool(given) and all(m > 0 for m in given), "positive multiples of the trained length")
PATH = (lambda value: all(map(_is_path, map(str, _entries(value)))), "a path that a file system can have")
DECAY = (_number(0, 1, open_end=True), "a number in [0, 1)")

STEPS = (
    lambda value: not isinstance(value, int | float) or (isinstance(value, int) and value > 0),
    ("a positive number of steps; there are no epochs that it could be a share of"),
)
ENDLESS = "there are no epochs, trainer.max_steps says how long to train"

LARGEST = 10**12
"""Of every number that is not named below, in size."""
MOST: dict[str, float] = {
    "seed_everything": LARGEST_SEED,
    "sample.seed": LARGEST_SEED,
    **dict.fromkeys(("data.seed", "seed.data", "seed.weights", "seed.dropout"), 2**63 - 1),
    "data.batch_size": 2**20,
    "data.block_size": 2**24,
    "data.meta_kinds": 4096,
    "data.num_workers": 1024,
    "data.shuffle_buffer": 2**24,
    "data.vocab_size": 2**24,
    "data.test_examples": 10**9,
    "data.validation_examples": 10**9,
    "model.n_layers": 10_000,
    "model.n_heads": 2**16,
    "model.d_model": 2**20,
    "model.d_ff": 2**24,
    "model.vocab_size": 2**24,
    "model.max_positions": 2**27,
    "model.optimizer.lr": 1e38,
    "model.optimizer.min_lr": 1e38,
    "model.optimizer.weight_decay": 1000.0,
    "trainer.accumulate_grad_batches": 10**6,
    "trainer.budget.source_tokens": 1e18,
    "trainer.budget.flops": 1e27,
    "trainer.num_nodes": 10**5,
    "throughput.window": 10**6,
    "sample.max_new_tokens": 2**20,
    "sample.temperature": 1000.0,
    **{f"{name}.multiples": 1024 for name in ("ablation", "lengths", "positions", "embedding", "placement")},
    **{f"{name}.n": 10**9 for name in ("lengths", "positions", "embedding", "placement")},
}
"""Largest values, beyond what anybody has trained: of what is counted in memory, processes or time."""

BOUNDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "run_dir": (lambda value: bool(str(value).strip()), "a folder"),
    "ckpt_path": (lambda value: bool(str(value).strip()), "a checkpoint"),
    "seed_everything": SEED,
    **dict.fromkeys(
        ("data.seed", "seed.data", "seed.weights", "seed.dropout"),
        (_number(0, 2**63 - 1), "a seed from 0 to 2^63 - 1"),
    ),
    "data.corpus": (
        lambda value: bool(value) and all(str(entry).strip() for entry in _entries(value)),
        "a file, a folder, a list of these, or the name of a data set",
    ),
    "data.validation_blocks": COUNT,
    "data.block_size": COUNT,
    "data.meta_kinds": COUNT,
    "data.vocab_size": (_number(1), "at least 258, which is 256 bytes and the special tokens"),
    "checkpoint.keep_last": COUNT,
    "model.optimizer.weight_decay": SIZE,
    "model.optimizer.beta1": DECAY,
    "model.optimizer.beta2": DECAY,
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.gradient_clip_val": SIZE,
    "trainer.gradient_clip_algorithm": (lambda value: str(value) == "norm", "norm"),
    "trainer.log_every_n_steps": COUNT,
    "trainer.val_check_interval": STEPS,
    "trainer.limit_train_batches": (lambda value: value == 1 and isinstance(value, float), f"null: {ENDLESS}"),
    "trainer.overfit_batches": (
        lambda value: value == 0,
        "0: data.max_documents, or data.train_examples of a task, says how little there is to learn",
    ),
    "trainer.max_epochs": (lambda value: value == -1 or value >= 1, f"null, -1 or 1 or more: {ENDLESS}"),
    "trainer.min_steps": COUNT,
    "trainer.limit_val_batches": (
        lambda value: value != 0,
        "1 or more: the best checkpoint follows from the validation loss",
    ),
    "trainer.check_val_every_n_epoch": COUNT,
    "trainer.min_epochs": SIZE,
    "trainer.num_sanity_val_steps": (_number(-1), "-1 (all) or more"),
    "checkpoint.keep_best": (_number(-1), "-1 (all) or more"),
    "checkpoint.every_n_steps": COUNT,
    "throughput.window": (_number(2), "2 or more"),
    "ablation.windows": COUNT,
    "ablation.multiples": MULTIPLES,
    "sample.seed": SEED,
    "bigram.max_tokens": (_number(2), "2 or more"),
    "sample.max_new_tokens": COUNT,
    "evaluate.every": COUNT,
    "evaluate.limit": COUNT,
    "evaluate.n_shots": SIZE,
    "evaluate.batch_size": COUNT,
    "sample.temperature": SIZE,
    "sample.top_k": SIZE,
    "lengths.multiples": MULTIPLES,
    "positions.multiples": MULTIPLES,
    "embedding.multiples": MULTIPLES,
    "placement.multiples": MULTIPLES,
    "lengths.n": COUNT,
    "positions.n": COUNT,
    "embedding.n": COUNT,
    "placement.n": COUNT,
}


PATHS = (
    *("run_dir", "ckpt_path", "data.corpus", "data.validation_corpus", "data.test_corpus"),
    *("data.tokenizer", "data.cache_dir"),
)


def check_bounds(config: Any) -> None:
    """Check the parsed options against `BOUNDS`; one that is absent or null is left alone.

    Raises:
        UserError: the first that lies outside, with its key, the value and what was expected.
    """
    for key, (valid, expected) in (*BOUNDS.items(), *((key, PATH) for key in PATHS)):
        value = config.get(key)
        if value is not None and not isinstance(value, bool) and not valid(value):
            shown = getattr(value, "value", value)
            raise UserError(f"{key}={shown}: expected {expected}")
    for key, number in _numbers(config.as_dict()):
        most = MOST.get(key, LARGEST)
        if not math.isfinite(number):
            raise UserError(f"{key}={number}: expected a finite number")
        if abs(number) > most:
            raise UserError(f"{key}={number}: expected at most {most:,}")
    epochs = config.get("trainer.check_val_every_n_epoch")
    if epochs is not None and epochs > 1:
        raise UserError(f"trainer.check_val_every_n_epoch={epochs}: expected 1: there are no epochs to count")
    _check_devices(config.get("trainer.accelerator"), config.get("trainer.devices"))
    if config.get("trainer.strategy") == "fsdp2" and config.get("data.task") is not None:
        # Ranks share out the questions of a validation unevenly; a model in pieces runs on all ranks or on none.
        raise UserError("trainer.strategy=fsdp2: expected ddp or auto with data.task")
    if config.get("trainer.strategy") == "fsdp2" and (name := config.get("model.optimizer.name")) == "muon":
        # It needs whole matrices, and each rank has a piece of them.
        raise UserError(f"trainer.strategy=fsdp2: expected ddp or auto with model.optimizer.name={name}")
    steps, least = config.get("trainer.max_steps"), config.get("trainer.min_steps")
    if steps is not None and steps < 1 and steps != -1:
        raise UserError(f"trainer.max_steps={steps}: expected 1 or more, or -1 for no end")
    if least is not None and steps is not None and steps != -1 and least > steps:
        raise UserError(f"trainer.min_steps={least}: expected at most trainer.max_steps={steps}")


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """(dotted key, number) of all numbers, those in lists and in mappings that are values of an option, too."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield from _numbers(one, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _numbers(one, key)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield key, value


def _on_cpu(accelerator: Any) -> bool:
    import torch

    return accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())


def _check_devices(accelerator: Any, devices: Any) -> None:
    """On CPUs each device is a process, and Lightning starts as many as it is told."""
    most = 4 * (os.cpu_count() or 1)
    wanted = int(devices) if str(devices).removeprefix("-").isdigit() else 0
    if wanted < -1:
        raise UserError(f"trainer.devices={devices}: expected auto, or how many")
    if _on_cpu(accelerator) and wanted > most:
        raise UserError(f"trainer.devices={devices}: expected at most {most} processes on this machine's CPUs")


def check_machine(config: Any) -> None:
    """Refuse what this machine cannot do, before a large model is built for it.

    Raises:
        UserError: a device that is not there, or a precision that it lacks.
    """
    import torch
    from lightning.pytorch.accelerators import AcceleratorRegistry

    accelerator, precision = str(config.trainer.accelerator), str(config.trainer.precision)
    there = torch.cuda.is_available() or (accelerator == "gpu" and torch.backends.mps.is_available())
    if accelerator in ("cuda", "gpu") and not there:
        raise UserError(f"trainer.accelerator={accelerator}: expected a GPU, and there is none on this machine")
    registered = accelerator not in ("auto", "cpu", "cuda", "gpu") and accelerator in AcceleratorRegistry
    if registered and not AcceleratorRegistry[accelerator]["accelerator"].is_available():
        has = ", ".join(["cpu", *(["gpu"] if there else [])])
        raise UserError(f"trainer.accelerator={accelerator}: expected one that this machine has: {has}")
    if precision.startswith("16") and _on_cpu(accelerator):
        # Lightning would take bfloat16 instead, with a warning.
        raise UserError(f"trainer.precision={precision}: expected bf16-mixed or 32-true on a CPU")
