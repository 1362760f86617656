"""Bounds of options that nothing else checks before a run folder is made: Lightning's, PyTorch's, and callbacks'."""

import os
from collections.abc import Callable
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
    return value if isinstance(value, list) else [value]


def _number(low: float, high: float = float("inf"), *, open_end: bool = False) -> Callable[[Any], bool]:
    return lambda value: low <= value < high if open_end else low <= value <= high


COUNT = (_number(1), "1 or more")
SIZE = (_number(0), "0 or more")
SEED = (_number(0, LARGEST_SEED), f"a seed from 0 to {LARGEST_SEED}")
MULTIPLES = (lambda given: bool(given) and all(m > 0 for m in given), "positive multiples of the trained length")
PATH = (lambda value: all(map(_is_path, map(str, _entries(value)))), "a path that a file system can have")
DECAY = (_number(0, 1, open_end=True), "a number in [0, 1)")

BOUNDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "run_dir": (lambda value: bool(str(value).strip()), "a folder"),
    "ckpt_path": (lambda value: bool(str(value).strip()), "a checkpoint"),
    "seed_everything": SEED,
    "data.seed": (_number(0, 2**63 - 1), "a seed from 0 to 2^63 - 1"),
    "data.corpus": (
        lambda value: bool(value) and all(str(entry).strip() for entry in _entries(value)),
        "a file, a folder, a list of these, or the name of a data set",
    ),
    "data.validation_blocks": COUNT,
    "data.block_size": COUNT,
    "data.vocab_size": (_number(1), "at least 258, which is 256 bytes and the special tokens"),
    "checkpoint.keep_last": COUNT,
    "model.optimizer.weight_decay": SIZE,
    "model.optimizer.beta1": DECAY,
    "model.optimizer.beta2": DECAY,
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.gradient_clip_val": SIZE,
    "trainer.gradient_clip_algorithm": (lambda value: str(value) == "norm", "norm"),
    "trainer.log_every_n_steps": COUNT,
    "trainer.val_check_interval": (lambda value: not isinstance(value, int | float) or value > 0, "a positive number"),
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
    "sample.max_new_tokens": COUNT,
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


PATHS = ("run_dir", "ckpt_path", "data.corpus", "data.validation_corpus", "data.tokenizer", "data.cache_dir")


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
    _check_devices(config.get("trainer.accelerator"), config.get("trainer.devices"))
    if config.get("trainer.strategy") == "fsdp2" and config.get("data.task") is not None:
        # Ranks share out the questions of a validation unevenly; a model in pieces runs on all ranks or on none.
        raise UserError("trainer.strategy=fsdp2: expected ddp or auto with data.task")
    steps, least = config.get("trainer.max_steps"), config.get("trainer.min_steps")
    if steps is not None and steps < 1 and steps != -1:
        raise UserError(f"trainer.max_steps={steps}: expected 1 or more, or -1 for no end")
    if least is not None and steps is not None and steps != -1 and least > steps:
        raise UserError(f"trainer.min_steps={least}: expected at most trainer.max_steps={steps}")


def _check_devices(accelerator: Any, devices: Any) -> None:
    """On CPUs each device is a process, and Lightning starts as many as it is told."""
    most = 4 * (os.cpu_count() or 1)
    wanted = int(devices) if str(devices).isdigit() else 0
    import torch

    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    if on_cpu and wanted > most:
        raise UserError(f"trainer.devices={devices}: expected at most {most} processes on this machine's CPUs")


def check_accelerator(accelerator: str) -> None:
    """Raise UserError for a GPU that is not there, before a large model is built for it."""
    import torch

    there = torch.cuda.is_available() or (accelerator == "gpu" and torch.backends.mps.is_available())
    if accelerator in ("cuda", "gpu") and not there:
        raise UserError(f"trainer.accelerator={accelerator}: expected a GPU, and there is none on this machine")
