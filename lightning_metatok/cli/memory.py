"""Whether a model fits into this machine's memory, before it is built in it for minutes, and the machine with it."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from lightning_metatok.errors import UserError
from lightning_metatok.lit.sharded import NAME as SHARDED
from lightning_metatok.model import TransformerConfig, mechanisms
from lightning_metatok.model.build import own

WEIGHT, TRAINED = 4, 16
"""Bytes of a parameter: the weight, which is made in memory wherever it goes; with gradient and AdamW's two moments."""


def check_memory(config: Mapping[str, Any], *, trains: bool) -> None:
    """Refuse a model whose parameters alone take more than all of this machine's memory.

    Raises:
        UserError: it says how many there are, and what they take.
    """
    trainer, there = config["trainer"], memory()
    if trainer["strategy"] == SHARDED:  # each process holds a piece
        return
    known = {field.name for field in fields(TransformerConfig)}
    n = n_parameters(TransformerConfig(**{key: value for key, value in config["model"].items() if key in known}))
    on_cpu = trainer["accelerator"] == "cpu" or (trainer["accelerator"] == "auto" and not torch.cuda.is_available())
    needed = n * (TRAINED if trains and on_cpu else WEIGHT)
    if needed > there:
        what = "with gradients and AdamW's moments" if trains and on_cpu else "as weights"
        raise UserError(
            f"model: its {n:,} parameters take {needed / 1e9:,.0f} GB {what}, and this machine has {there / 1e9:,.0f} "
            "GB; expected fewer model.n_layers, or a smaller model.d_model or model.vocab_size"
        )


def n_parameters(config: TransformerConfig) -> int:
    """Return the parameters of a model, without building more than two of its layers, or any weight."""
    counts = []
    # Which layers have a mechanism says nothing of the two that are built: they have it, as most may.
    which = mechanisms.AXIS.find(config.mechanism).free_when_new
    options = {key: value for key, value in config.mechanism_options.items() if key not in which}
    for layers in (1, 2):
        small = replace(config, n_layers=layers, mechanism_options=options)
        with torch.device("meta"):
            counts.append(own(small).n_parameters())
    return counts[0] + (config.n_layers - 1) * (counts[1] - counts[0])


def memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or its container's."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            found = min(found, int(Path(limit).read_text()))
    return found
