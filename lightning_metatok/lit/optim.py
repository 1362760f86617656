"""The optimiser of a run, AdamW unless another is named, and a schedule of the learning rate behind a linear warmup.

    cosine   a cosine from the warmup to `min_lr`: nanoGPT's recipe, the base of the paper
    wsd      `lr` up to the last `cooldown` of all steps, then a straight line to `min_lr`: warmup, stable, decay
             (Hu et al. 2024, MiniCPM; Hagele et al. 2024)
    constant `lr` to the end: what schedule-free optimisers want

The number of steps is named in the config: nothing here asks the loader how long it is, because that question starts
the data afresh in the middle of a resumed run.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.lit import optimizers

Schedule = Literal["cosine", "wsd", "constant"]


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimiser and schedule."""

    lr: float = 6e-4
    """Highest learning rate, reached after the warmup."""
    min_lr: float = 6e-5
    """Learning rate from `decay_steps` on."""
    warmup_steps: int = 100
    """Optimiser steps of linear warmup."""
    decay_steps: int = 1000
    """Optimiser step at which the schedule reaches `min_lr`; usually `${trainer.max_steps}`."""
    weight_decay: float = 0.1
    """Decoupled weight decay of parameters with two or more dimensions; vectors are never decayed."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.95
    """Decay of the second moment."""
    schedule: Schedule = "cosine"
    """Behind the warmup: cosine, wsd (`lr`, and a straight line at the end of `decay_steps`) or constant (`lr`)."""
    cooldown: float = 0.2
    """Share of `decay_steps` in which wsd falls, at their end."""
    name: str = "adamw"
    """adamw, muon (hidden matrices; AdamW for the rest), or a class such as torch.optim.SGD, by its path."""
    options: dict[str, Any] = field(default_factory=dict)
    """Other arguments of that class."""

    def __post_init__(self) -> None:
        """Raise UserError for a schedule that cannot be followed."""
        if self.lr <= 0 or not 0 <= self.min_lr <= self.lr:
            raise UserError(
                f"model.optimizer.min_lr={self.min_lr}, model.optimizer.lr={self.lr}: "
                "expected 0 <= min_lr <= lr and lr > 0"
            )
        for name, value, least in (("warmup_steps", self.warmup_steps, 0), ("decay_steps", self.decay_steps, 1)):
            if value < least:
                raise UserError(f"model.optimizer.{name}={value}: expected {least} or more")
        if self.schedule not in (known := get_args(Schedule)):
            raise UserError(
                f"model.optimizer.schedule={self.schedule!r}: expected one of {', '.join(known)}"
                f"{nearest(self.schedule, known)}"
            )
        if not 0 < self.cooldown <= 1:
            raise UserError(f"model.optimizer.cooldown={self.cooldown}: expected a share above 0, up to 1")


def learning_rate(step: int, config: OptimizerConfig) -> float:
    """Learning rate of optimiser step `step` (0 is the first); a run shorter than the warmup sees only that."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "wsd":
        start = max(config.warmup_steps, config.decay_steps * (1 - config.cooldown))
        done = min(1.0, max(0.0, (step - start) / max(1e-9, config.decay_steps - start)))
        return config.lr - done * (config.lr - config.min_lr)
    if config.schedule == "constant":
        return config.lr
    done = min(1.0, (step - config.warmup_steps) / max(1, config.decay_steps - config.warmup_steps))
    return config.min_lr + 0.5 * (1 + math.cos(math.pi * done)) * (config.lr - config.min_lr)


def build_optimizer(module: nn.Module, config: OptimizerConfig) -> tuple[Optimizer, LambdaLR]:
    """The optimiser over the trainable parameters of `module`, and its schedule, to be stepped once a step.

    Raises:
        UserError: what `optimizers.build` raises.
    """
    optimizer = _optimizer(module, config)
    return optimizer, LambdaLR(optimizer, lambda step: learning_rate(step, config) / config.lr)


def _optimizer(module: nn.Module, config: OptimizerConfig) -> Optimizer:
    return optimizers.build(
        module,
        config.name,
        config.options,
        lr=config.lr,
        weight_decay=config.weight_decay,
        betas=(config.beta1, config.beta2),
    )


def follow(module: nn.Module, config: OptimizerConfig, optimizer: Optimizer, schedule: LambdaLR) -> None:
    """Let an optimiser that was loaded, with the settings of its checkpoint, go on under these; moments stay."""
    settings = optimizers.arguments(type(optimizer))
    for group, new in zip(optimizer.param_groups, _optimizer(module, config).param_groups, strict=True):
        group.update({key: new[key] for key in settings if key in new})
        group.update(lr=learning_rate(schedule.last_epoch, config), initial_lr=config.lr)
    schedule.base_lrs = [config.lr for _ in schedule.base_lrs]
