"""What a checkpoint must hold before anything is built from it: types first, then shapes, without a large buffer.

Whoever wrote the file may have written anything into it. It is read with weights_only=True, so nothing in it can run;
here it is refused in one line if it does not fit, before a run folder is made.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from lightning_metatok import old_keys
from lightning_metatok.data import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.model import TransformerConfig, build, mechanisms, positions, recurrences
from lightning_metatok.model.attention import patterns
from lightning_metatok.model.build import own
from lightning_metatok.registry import foreign_names

AXES = (positions.AXIS, patterns.AXIS, mechanisms.AXIS, recurrences.AXIS)
TOKENIZER_KEY = "tokenizer"
KINDS: Mapping[str, type] = {
    "state_dict": Mapping,
    "hyper_parameters": Mapping,
    TOKENIZER_KEY: str,
    "callbacks": Mapping,
    "loops": Mapping,
    "optimizer_states": list,
    "lr_schedulers": list,
    "global_step": int,
}
"""What is in a checkpoint that `fit` wrote."""
PREFIX = "model."
"""Of the transformer's weights in the LightningModule."""


def check_kinds(checkpoint: Mapping[str, Any], source: str) -> None:
    """Refuse a checkpoint in which something that may be read is of another kind than `fit` writes.

    Raises:
        UserError: it begins with `source`, such as ``--ckpt_path=x.ckpt``, and names the entry.
    """
    for key, kind in KINDS.items():
        if key in checkpoint and not isinstance(checkpoint[key], kind):
            raise UserError(f"{source}: {key} holds {type(checkpoint[key]).__name__}, expected {kind.__name__.lower()}")
    for name, weight in checkpoint["state_dict"].items():
        if not isinstance(name, str) or not isinstance(weight, Tensor):
            raise UserError(f"{source}: state_dict[{name!r}] holds {type(weight).__name__}, expected a tensor")
    for name, state in checkpoint.get("callbacks", {}).items():
        if not isinstance(state, Mapping):
            raise UserError(f"{source}: callbacks[{name!r}] holds {type(state).__name__}, expected a mapping")
    if TOKENIZER_KEY in checkpoint:
        tokenizer_of(checkpoint, source)


def check_resumable(checkpoint: Mapping[str, Any], model: nn.Module, source: str, optimizer: str) -> None:
    """Refuse a checkpoint that training cannot go on from, though its weights may be fine. Raises UserError.

    `optimizer`: `model.optimizer.name`.
    """
    missing = [key for key in KINDS if key not in checkpoint]
    if missing:
        raise UserError(f"{source}: no {', '.join(missing)}; expected a checkpoint as `fit` writes them")
    states = checkpoint["optimizer_states"]
    sound = len(states) == 1 and isinstance(states[0], Mapping) and {"state", "param_groups"} <= states[0].keys()
    expected = sum(1 for weight in model.parameters() if weight.requires_grad)
    if not sound or sum(len(group["params"]) for group in states[0]["param_groups"]) != expected:
        raise UserError(
            f"{source}: its optimizer_states are not those of {expected} parameters; expected a checkpoint as `fit` "
            "writes them (model.init_from starts from weights alone)"
        )
    was = (checkpoint["hyper_parameters"].get("optimizer") or {}).get("name", "adamw")
    if was != optimizer:
        raise UserError(
            f"model.optimizer.name={optimizer}: expected {was}, whose state {source} holds "
            "(model.init_from starts from weights alone)"
        )


def tokenizer_of(checkpoint: Mapping[str, Any], source: str) -> MetaTokenizer:
    """Return the tokenizer that a checkpoint carries. Raises UserError if it is none."""
    try:
        return MetaTokenizer.from_json(checkpoint[TOKENIZER_KEY])
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except Exception as error:  # `tokenizers` raises bare Exception for anything wrong
        reason = " ".join(str(error).split())
        raise UserError(f"{source}: {TOKENIZER_KEY} is no tokenizer.json ({reason})") from error


def weights_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights of the transformer in a checkpoint, by their names there."""
    return {name.removeprefix(PREFIX): w for name, w in checkpoint["state_dict"].items() if name.startswith(PREFIX)}


def check_trusted_axes(hyper_parameters: Mapping[str, Any], source: str) -> None:
    """Refuse a model that needs code of another package: whoever wrote the checkpoint would have it run.

    Raises:
        UserError: it names the code, and how to allow it.
    """
    keys = [axis.key for axis in AXES]
    named = [name for key in keys for name in foreign_names(f"model.{key}", hyper_parameters.get(key))]
    if named:
        raise UserError(
            f"{source}: expected a model of this package's own classes, and it names {', '.join(named)}, "
            "which would be imported and run; --trust allows it, if you know who wrote it"
        )


def config_of(checkpoint: Mapping[str, Any], source: str, *, trust: bool = False) -> TransformerConfig:
    """Return the shape of the transformer in a checkpoint, whose weights have that shape.

    Args:
        trust: import classes of other packages that the checkpoint names.

    Raises:
        UserError: there is no such transformer, or its weights are of another shape, or it needs code of others.
    """
    if not trust:
        check_trusted_axes(checkpoint["hyper_parameters"], source)
    names = {field.name for field in fields(TransformerConfig)}
    try:
        saved = old_keys.translated(checkpoint["hyper_parameters"])
        n_layers, weights = saved.get("n_layers"), weights_of(checkpoint)
        if isinstance(n_layers, int) and n_layers > len(weights):  # before so many are asked what they have
            raise UserError(f"model.n_layers={n_layers}, but there are {len(weights)} weights")
        config = TransformerConfig(**{k: v for k, v in saved.items() if k in names})
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except TypeError as error:
        raise UserError(f"{source}: hyper_parameters describe no transformer ({error})") from error
    if config.base is not None:  # which is read from where it lies
        check_weights(build(config).state_dict(), weights_of(checkpoint), source)
        return config
    try:
        with torch.device("meta"):
            shapes = own(config).state_dict()
    except RuntimeError as error:
        raise UserError(f"{source}: hyper_parameters describe no transformer ({error})") from error
    check_weights(shapes, weights, source)
    return config


def check_weights(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that a model with the weights `mine` cannot take.

    Raises:
        UserError: some are missing or left over, of another shape, or not finite.
    """
    missing, left = sorted(mine.keys() - theirs.keys()), sorted(theirs.keys() - mine.keys())
    if missing or left:
        raise UserError(f"{source}: weights differ; missing {missing[:3]}, not expected {left[:3]}")
    for name, weight in theirs.items():
        if weight.shape != mine[name].shape:
            shapes = f"{list(weight.shape)}; expected {list(mine[name].shape)}"
            raise UserError(f"{source}: weights {name} have shape {shapes}")
        if not weight.is_meta and not torch.isfinite(weight).all():
            raise UserError(f"{source}: weights {name} are not finite; expected a checkpoint from before that")


def read_otherwise(checkpoint: Mapping[str, Any], config: TransformerConfig) -> list[str]:
    """Return a line for each option of an axis that may change after training, and has: it is another model now."""
    saved, lines = old_keys.translated(checkpoint.get("hyper_parameters", {})), []
    for axis in AXES:
        name, options = getattr(config, axis.key), f"{axis.key}_options"
        if saved.get(axis.key) == name:
            theirs, ours = (axis.filled(name, dict(of)) for of in (saved.get(options, {}), getattr(config, options)))
            lines += [
                f"model.{options}.{key}={ours[key]}, trained with {theirs.get(key)}: the checkpoint is read with "
                f"another {axis.key} than the one it learned"
                for key in ours
                if ours[key] != theirs.get(key)
            ]
    return lines
