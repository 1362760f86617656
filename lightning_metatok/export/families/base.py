"""The one interface of families: shapes of models that transformers has itself, read and written.

    why_not(config)             why one of our models is none of the family, or nothing
    their_config(config)        its config.json
    their_weights(weights, c)   its tensors under their names
    our_options(theirs)         the fields of `TransformerConfig` that a config.json says
    our_weights(theirs, c)      tensors under our names

`common` says why not for every family alike: a field of our config that a family does not know must be at its default.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model import TransformerConfig

Weights = dict[str, Tensor]
SIZES = frozenset({"n_layers", "n_heads", "d_model", "vocab_size", "max_positions", "d_ff"})
WITHOUT_EFFECT = frozenset(
    {
        "dropout",
        "init_std",
        "attention_backend",
        "activation_checkpointing",
        "drop_positions",
        "mechanism",
        "mechanism_options",
    }
)
"""On logits of a trained model; of the last three, where the mechanism adds nothing and positions are kept."""


class Family:
    """A family; subclasses say what it can express."""

    name: ClassVar[str]
    """Its `model_type`."""
    config_class: ClassVar[str]
    model_class: ClassVar[str]
    """Of transformers."""
    knows: ClassVar[frozenset[str]]
    """Fields of `TransformerConfig` that it can express, besides sizes."""

    def why_not(self, config: TransformerConfig) -> str | None:
        """Return why a model is none of this family, as a clause; None: it is one."""
        raise NotImplementedError

    def their_config(self, config: TransformerConfig) -> dict[str, Any]:
        """Return what its config class is built from."""
        raise NotImplementedError

    def their_weights(self, weights: Weights, config: TransformerConfig) -> Weights:
        """Return the tensors of a model of this family."""
        raise NotImplementedError

    def our_options(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of `TransformerConfig`, without a mechanism.

        Raises:
            UserError: it has something that `TransformerConfig` cannot express.
        """
        raise NotImplementedError

    def our_weights(self, theirs: Weights, config: TransformerConfig) -> Weights:
        """Return the tensors of a `MetaTransformer`."""
        raise NotImplementedError


def common(config: TransformerConfig, knows: frozenset[str]) -> str | None:
    """Return why a model is none of any family, as a clause; None: nothing speaks against it."""
    if not config.built_mechanism.idle:
        return f"model.mechanism={config.mechanism!r} is in no model of transformers"
    if config.drop_positions != "none":
        return f"model.drop_positions={config.drop_positions!r} drops positions of meta-tokens"
    for field in fields(config):
        if field.name in SIZES | WITHOUT_EFFECT | knows:
            continue
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if (value := getattr(config, field.name)) != default:
            return f"model.{field.name}={value!r}"
    return None


def refuse_unless(right: bool, family: str, key: str, value: Any, expected: str) -> None:
    """Raise `UserError` about an entry of a config.json that our model cannot express."""
    if not right:
        raise UserError(
            f"config.json of {family}: {key}={value!r}: expected {expected}, which is all that import reads"
        )


def renamed(names: Mapping[str, str], n_layers: int) -> Iterator[tuple[str, str]]:
    """Yield (our name, their name) of each module; `{i}` in both stands for the number of a block."""
    for ours, theirs in names.items():
        for i in range(n_layers) if "{i}" in ours else (0,):
            yield ours.format(i=i), theirs.format(i=i)


def moved(
    weights: Weights,
    names: Mapping[str, str],
    n_layers: int,
    *,
    to_ours: bool,
    transposed: frozenset[str] = frozenset(),
) -> Weights:
    """Return weights and biases of modules under the other side's names.

    Args:
        names: our modules and theirs. transposed: of our modules, those whose weight they store transposed.
    """
    found: Weights = {}
    for ours, theirs in renamed(names, n_layers):
        source, target = (theirs, ours) if to_ours else (ours, theirs)
        for kind in ("weight", "bias"):
            if (tensor := weights.get(f"{source}.{kind}")) is not None:
                turn = kind == "weight" and ours.rpartition(".")[2] in transposed
                found[f"{target}.{kind}"] = tensor.T.contiguous() if turn else tensor
    return found


def with_zero_biases(weights: Weights, modules: list[tuple[str, int]]) -> Weights:
    """Return the weights and, where a module [name, rows] has no bias, one of zeros: it computes the same."""
    like = next(iter(weights.values()))
    zeros = {f"{name}.bias": torch.zeros(n, dtype=like.dtype) for name, n in modules if f"{name}.bias" not in weights}
    return {**weights, **zeros}
