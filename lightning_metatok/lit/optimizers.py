"""Optimisers by name, and which of a model's parameters each updates how.

    adamw                            AdamW (fused)
    muon                             Muon for the matrices of hidden layers, AdamW for embeddings, head and vectors
    torch.optim.SGD                  any other class with its own arguments, such as
    schedulefree.AdamWScheduleFree   Schedule-Free AdamW (Defazio et al. 2024), from the package `schedulefree`

Matrices (two or more dimensions) are decayed, vectors never are.
"""

from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, signature
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.registry import Registry

HIDDEN = "hidden"
"""Marks a group of hidden matrices."""


class MuonAndAdamW(Optimizer):
    """Muon (Jordan et al. 2024) for groups marked `hidden`, AdamW for the others: two optimisers that share one state.

    `adjust_lr_fn="match_rms_adamw"` scales Muon's steps to the size of AdamW's, so that one learning rate and one
    weight decay serve both (Liu et al. 2025, "Muon is Scalable for LLM Training").
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.95),
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr_fn: str = "match_rms_adamw",
    ) -> None:
        """`momentum`, `nesterov`, `ns_steps` (of Newton and Schulz) and `adjust_lr_fn` are Muon's, `betas` AdamW's."""
        groups = list(params)
        hidden = [group for group in groups if group[HIDDEN]]
        others = [group for group in groups if not group[HIDDEN]]
        of_muon = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn}
        shared: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
        parts: list[Optimizer] = []
        if hidden:
            parts.append(Muon(hidden, **shared, **of_muon))  # type: ignore[arg-type]
        if others:
            parts.append(AdamW(others, **shared, betas=betas, fused=can_fuse(others)))
        self.parts: tuple[Optimizer, ...] = ()
        super().__init__(groups, {})
        self.parts = tuple(parts)
        self._share()

    def _share(self) -> None:
        """Let the parts work on the groups and the state of the whole, which is what a checkpoint holds."""
        for part in self.parts:
            wanted = isinstance(part, Muon)
            part.param_groups = [group for group in self.param_groups if group[HIDDEN] == wanted]
            part.state = self.state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up what `load_state_dict` read."""
        super().__setstate__(state)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss


CLASSES: Mapping[str, type[Optimizer]] = {"adamw": AdamW, "muon": MuonAndAdamW}
OPTIMIZERS: Registry[Optimizer] = Registry("model.optimizer.name", Optimizer, CLASSES, group="optimizers")
KEYS = {"lr": "model.optimizer.lr", "weight_decay": "model.optimizer.weight_decay"}
"""Arguments that have a key of their own, as both follow from group and step."""


def build(
    module: nn.Module,
    name: str,
    options: Mapping[str, Any],
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
) -> Optimizer:
    """Return the optimiser over the trainable parameters of `module`.

    Args:
        name: of `OPTIMIZERS`, or the path of a class. options: arguments of that class.
        weight_decay: of matrices. betas: given to classes that take some.

    Raises:
        UserError: no such class, an argument that it does not take, or a value that it refuses.
    """
    kind = OPTIMIZERS.resolve(name)
    takes = arguments(kind)
    takes_any = any(one.kind is Parameter.VAR_KEYWORD for one in signature(kind).parameters.values())
    for key in options:
        if key in KEYS:
            raise UserError(f"model.optimizer.options.{key}={options[key]}: expected it as {KEYS[key]}")
        if key not in takes and not takes_any:
            raise UserError(
                f"model.optimizer.options.{key}={options[key]}: {name} takes "
                f"{', '.join(one for one in takes if one not in KEYS)}{nearest(key, takes)}"
            )
    groups = groups_of(module, weight_decay, apart=kind is MuonAndAdamW)
    given: dict[str, Any] = {"lr": lr, "betas": betas}
    if kind is AdamW:
        given["fused"] = can_fuse(groups)
    given = {key: value for key, value in given.items() if key in takes or takes_any}
    try:
        return kind(groups, **{**given, **options})
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"model.optimizer.name={name}: {' '.join(str(error).split())}") from error


def check(name: str, options: Mapping[str, Any]) -> None:
    """Build the optimiser over a layer of nothing.

    Raises:
        UserError: what `build` raises.
    """
    build(nn.ModuleList([nn.Linear(1, 1)]), name, options, lr=1e-3, weight_decay=0.0, betas=(0.9, 0.95))


def arguments(kind: type[Optimizer]) -> list[str]:
    """Names of what a class takes beside the parameters."""
    found = signature(kind).parameters.values()
    return [one.name for one in list(found)[1:] if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]


def groups_of(module: nn.Module, weight_decay: float, *, apart: bool) -> list[dict[str, Any]]:
    """Return the groups of parameters: matrices, vectors, and with `apart` hidden matrices before both."""
    trainable = [weight for weight in module.parameters() if weight.requires_grad]
    hidden = hidden_matrices(module) if apart else set()
    marks = [True, False] if apart else [False]
    groups = []
    for mark in marks:
        matrices = [weight for weight in trainable if weight.dim() >= 2 and (id(weight) in hidden) == mark]
        groups.append({"params": matrices, "weight_decay": weight_decay, HIDDEN: mark})
    groups.append({"params": [weight for weight in trainable if weight.dim() < 2], "weight_decay": 0.0, HIDDEN: False})
    # A checkpoint of AdamW says nothing of hidden layers.
    return groups if apart else [{key: group[key] for key in group if key != HIDDEN} for group in groups]


def hidden_matrices(module: nn.Module) -> set[int]:
    """Return the ids of the weights of linear maps inside a list of layers: neither embeddings nor a head."""
    lists = (part for part in module.modules() if isinstance(part, nn.ModuleList))
    return {id(part.weight) for layers in lists for part in layers.modules() if isinstance(part, nn.Linear)}


def can_fuse(groups: Iterable[Mapping[str, Any]]) -> bool:
    """Whether PyTorch has a fused step for the devices of these parameters."""
    return all(weight.device.type in ("cpu", "cuda") for group in groups for weight in group["params"])


def train(optimizers: Iterable[Optimizer]) -> None:
    """Let weights be those that gradients are taken at, where an optimiser keeps others beside them."""
    _turn(optimizers, "train")


def average(optimizers: Iterable[Optimizer]) -> None:
    """Let weights be those that are validated and kept: schedule-free optimisers average theirs."""
    _turn(optimizers, "eval")


def _turn(optimizers: Iterable[Optimizer], way: str) -> None:
    for optimizer in optimizers:
        if (turn := getattr(optimizer, way, None)) is not None:
            turn()
