"""Whether a model fits into this machine's memory, before it is built in it for minutes, and the machine with it."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from lightning_metatok.errors import UserError
from lightning_metatok.lit.optim import OptimizerConfig
from lightning_metatok.lit.optimizer_state import state_bytes
from lightning_metatok.lit.sharded import NAME as SHARDED
from lightning_metatok.model import MetaTransformer, TransformerConfig, mechanisms
from lightning_metatok.model.build import own

WEIGHT = 4
"""Bytes of a parameter: the weight, which is made in memory wherever it goes, and as many of its gradient."""


def check_memory(config: Mapping[str, Any], *, trains: bool) -> None:
    """Refuse a model whose parameters alone take more than all of this machine's memory.

    Raises:
        UserError: it says how many there are, and what they take.
    """
    trainer, there = config["trainer"], memory()
    if trainer["strategy"] == SHARDED:  # each process holds a piece
        return
    known = {field.name for field in fields(TransformerConfig)}
    model = TransformerConfig(**{key: value for key, value in config["model"].items() if key in known})
    n = n_parameters(model)
    on_cpu = trainer["accelerator"] == "cpu" or (trainer["accelerator"] == "auto" and not torch.cuda.is_available())
    needed, what = WEIGHT * n, "as weights"
    if trains and on_cpu:
        optimizer = OptimizerConfig(**config["model"]["optimizer"])
        kept = of_all_layers(model, lambda built: state_bytes(built, optimizer) or 0)
        needed, what = 2 * WEIGHT * n + kept, f"with gradients and what {optimizer.name} keeps"
    if needed > there:
        raise UserError(
            f"model: its {n:,} parameters take {needed / 1e9:,.0f} GB {what}, and this machine has {there / 1e9:,.0f} "
            "GB; expected fewer model.n_layers, or a smaller model.d_model or model.vocab_size"
        )


def n_parameters(config: TransformerConfig) -> int:
    """Return the parameters of a model, without building more than two of its layers, or any weight."""
    return of_all_layers(config, MetaTransformer.n_parameters)


def of_all_layers(config: TransformerConfig, count: Callable[[MetaTransformer], int]) -> int:
    """Return what `count` says of a model, from what it says of one of one layer and one of two, on no device."""
    # Which layers have a mechanism says nothing of the two that are built: they have it, as most may.
    which = mechanisms.AXIS.find(config.mechanism).free_when_new
    options = {key: value for key, value in config.mechanism_options.items() if key not in which}
    counts = []
    for layers in (1, 2):
        with torch.device("meta"):
            counts.append(count(own(replace(config, n_layers=layers, mechanism_options=options))))
    return counts[0] + (config.n_layers - 1) * (counts[1] - counts[0])


def memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or its container's."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            found = min(found, int(Path(limit).read_text()))
    return found
