"""Readings of text: what is changed about the meta-tokens of a trained model's text, and nothing else.

    kept        M0 the M2 cat    positions as they are, whichever way the model was trained
    dropped     M. the M. cat    no positions at meta-tokens
    shuffled    M2 the M0 cat    their positions permuted among the meta-tokens of the block

All readings read the SAME text with the SAME meta-tokens, so that two of them differ in that change alone. The first
that a run has is what the others are compared with. A class here and a line in `READINGS` is all that a new one needs.

Source: arXiv 2509.16278, table 2 (positions zeroed at inference, only at meta-tokens); the shuffled one is ours: it
tells whether it matters which position a meta-token has, beside whether it has one.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lightning_metatok.data import Batch
from lightning_metatok.data.counter import random_bits
from lightning_metatok.model import TransformerConfig
from lightning_metatok.model.config import DROP_NOWHERE
from lightning_metatok.palette import BLUE, GREEN, ORANGE
from lightning_metatok.registry import Registry

SHUFFLE = 0x73687566666C65
"""Seed of the permutations: the same for all runs, so that two models are read alike."""


class Reading(ABC):
    """One way to read text with meta-tokens."""

    name: ClassVar[str]
    """In tags: ablation/<name>_1x."""
    label: ClassVar[str]
    """In figures."""
    column: ClassVar[str]
    """In tables."""
    colour: ClassVar[str]
    marker: ClassVar[str]
    """In figures, as matplotlib names them."""

    def is_as_trained(self, config: TransformerConfig) -> bool:
        """Whether a model of this shape was trained on text that is read so."""
        return False

    @abstractmethod
    def change(self, batch: Batch, where: str) -> tuple[Batch, str]:
        """Return the batch to read, and where positions are dropped, as in `MetaTransformer.forward`.

        Args:
            batch: of the validation text; the same at every call, and not to be changed.
            where: `PositionAblation.where`.
        """


class Kept(Reading):
    """Positions everywhere, whichever way the model was trained."""

    name = "kept"
    label, column = "positions kept at meta-tokens", "positions kept"
    colour, marker = BLUE, "o"

    def is_as_trained(self, config: TransformerConfig) -> bool:
        """Where positions are dropped nowhere."""
        return config.drop_positions == DROP_NOWHERE

    def change(self, batch: Batch, where: str) -> tuple[Batch, str]:
        """Change nothing."""
        return batch, DROP_NOWHERE


class Dropped(Reading):
    """No positions at meta-tokens."""

    name = "dropped"
    label, column = "positions dropped at meta-tokens", "dropped at meta"
    colour, marker = ORANGE, "s"

    def is_as_trained(self, config: TransformerConfig) -> bool:
        """Where they are dropped somewhere."""
        return config.drop_positions != DROP_NOWHERE

    def change(self, batch: Batch, where: str) -> tuple[Batch, str]:
        """Drop positions there."""
        return batch, where


class Shuffled(Reading):
    """The positions of a block's meta-tokens permuted among them."""

    name = "shuffled"
    label, column = "positions shuffled at meta-tokens", "shuffled at meta"
    colour, marker = GREEN, "^"

    def change(self, batch: Batch, where: str) -> tuple[Batch, str]:
        """Permute them."""
        return replace(batch, position_ids_BT=shuffled(batch)), DROP_NOWHERE


READINGS = Registry(
    "ablation.readings", Reading, {kind.name: kind for kind in (Kept, Dropped, Shuffled)}, group="readings"
)
DEFAULT = [Kept.name, Dropped.name]


@dataclass(frozen=True)
class ReadingLoss:
    """What one reading gave at `multiple` times the training length: a cell of the ablation's table."""

    multiple: int
    reading: str
    """Its name."""
    length: int
    nats: float
    bits_per_byte: float | None

    @property
    def tag(self) -> str:
        """Name in TensorBoard and metrics.jsonl."""
        return f"ablation/{self.reading}_{self.multiple}x"


def shuffled(batch: Batch) -> Tensor:
    """Return position_ids_BT, those of each row's meta-tokens permuted among them.

    A row's permutation follows from its tokens alone: it does not depend on the batch or the device that it stands in.
    """
    tokens_BT, meta_BT = batch.tokens_BT.cpu().numpy(), batch.meta_mask_BT.cpu().numpy()
    ids_BT = batch.position_ids_BT.cpu().numpy().copy()
    slots_T = np.arange(tokens_BT.shape[1])
    for tokens_T, meta_T, ids_T in zip(tokens_BT, meta_BT, ids_BT, strict=True):
        content = np.bitwise_xor.reduce(random_bits(SHUFFLE, slots_T, tokens_T))
        at_M = np.flatnonzero(meta_T)
        ids_T[at_M] = ids_T[at_M[np.argsort(random_bits(SHUFFLE, content, at_M), kind="stable")]]
    return torch.from_numpy(ids_BT).to(batch.position_ids_BT.device)
