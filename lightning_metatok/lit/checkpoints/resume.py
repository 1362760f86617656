"""Which keys may differ between a run and the one that goes on with it: those that the numbers do not depend on."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from typing import Any

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.old_keys import translated_flat

FREE = (
    *("run_dir", "ckpt_path", "allow_changed", "config", "config.*"),
    # How long, and what is written, shown and kept.
    *("trainer.max_steps", "trainer.max_time", "trainer.max_epochs", "trainer.logger*", "trainer.callbacks*"),
    *("trainer.enable_*", "trainer.profiler*", "trainer.default_root_dir", "trainer.num_sanity_val_steps"),
    *("checkpoint.*", "nonfinite.*", "throughput.*", "sample.*"),
    # Where and on what it runs: batches are a function of the step and the global batch, which is compared below.
    *("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy*", "data.batch_size"),
    *(
        "data.num_workers",
        "data.cache_dir",
        "data.tokenizer",
        "model.attention_backend",
        "model.activation_checkpointing",
        "model.compile",
    ),
    # Weights are those of the checkpoint.
    *("model.init_from", "model.init_new*"),
)
"""Patterns of keys that are free to change. A changed tokenizer is refused by what it does, not by its path."""


def flat_config(content: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as one level of dotted keys; lists as text, so that all values are plain."""

    def walk(values: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
        for key, value in values.items():
            if isinstance(value, Mapping) and value:
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value if isinstance(value, int | float | str | None) else str(value)

    return dict(walk(content, ""))


def check_same_run(
    saved: Mapping[str, Any],
    mine: Mapping[str, Any],
    trainer: Mapping[str, Any],
    allowed: Iterable[str],
) -> None:
    """Refuse to go on with a run under another configuration.

    Args:
        saved: what RunState saved; empty in a checkpoint that is older than it.
        mine: the flat configuration now. trainer: its options of the trainer. allowed: keys that may differ.

    Raises:
        UserError: keys differ that are neither free nor allowed; all of them are named. Or an allowed key is none.
    """
    allowed = list(allowed)
    theirs = None if saved.get("config") is None else translated_flat(saved["config"])
    known = sorted({*mine, *(theirs or {})})
    for pattern in allowed:
        if not any(fnmatch(key, pattern) for key in known):
            raise UserError(f"allow_changed={pattern}: expected a key of the configuration{nearest(pattern, known)}")
    if theirs is None:
        return
    free = (*FREE, *allowed)
    changed = [
        f"{key}={mine.get(key)} (was {theirs.get(key)})"
        for key in sorted({*theirs, *mine})
        if theirs.get(key) != mine.get(key) and not any(fnmatch(key, pattern) for pattern in free)
    ]
    if theirs.get("data.batch_size") != mine.get("data.batch_size") and "data.batch_size" not in allowed:
        n = ranks(trainer)
        if n is not None and saved["world_size"] * theirs["data.batch_size"] != n * mine["data.batch_size"]:
            was = f"was {theirs['data.batch_size']} on {saved['world_size']} ranks"
            changed.append(f"data.batch_size={mine['data.batch_size']} on {n} ranks ({was})")
    if changed:
        keys = ",".join(part.split("=")[0] for part in changed)
        raise UserError(f"{'; '.join(changed)}: expected the values of the run; --allow_changed=[{keys}] allows these")


def ranks(trainer: Mapping[str, Any]) -> int | None:
    """Processes that the trainer will use, where its options say so."""
    devices, nodes = trainer.get("devices", "auto"), trainer.get("num_nodes") or 1
    if devices in ("auto", None) and trainer.get("accelerator") in ("auto", "cpu", None):
        import torch

        devices = torch.cuda.device_count() if torch.cuda.is_available() and trainer.get("accelerator") != "cpu" else 1
    if isinstance(devices, str) and devices.isdigit():
        devices = int(devices)
    return devices * nodes if isinstance(devices, int) and devices > 0 else None
