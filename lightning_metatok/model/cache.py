"""What generation remembers: keys and values a branch, and the facts of the tokens that they are of.

    attention of all tokens      [B, N, K, H]    grows by every token
    attention of extra tokens    [B, N, M, H]    grows by extra tokens only

Samples hold different numbers of extra tokens: a sample's own fill its first slots, and the rest is empty,
behind every query's causal sight.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.branch import Branch


@dataclass(frozen=True)
class ExtraSlots:
    """Where the R new extra rows of a chunk go in [B, N, M, H]; the same for all layers."""

    sample_R: Tensor
    slot_R: Tensor
    n_samples: int
    n_slots: int

    def scatter(self, x_RNH: Tensor, old_BNMH: Tensor | None) -> Tensor:
        """`old` grown to all slots with the new rows put in."""
        grown_BMNH = x_RNH.new_zeros(self.n_samples, self.n_slots, *x_RNH.shape[1:])
        if old_BNMH is not None:
            grown_BMNH[:, : old_BNMH.shape[2]] = old_BNMH.transpose(1, 2)
        grown_BMNH[self.sample_R, self.slot_R] = x_RNH
        return grown_BMNH.transpose(1, 2)

    def gather(self, x_BNMH: Tensor) -> Tensor:
        """The new rows, [R, N, H]."""
        return x_BNMH.transpose(1, 2)[self.sample_R, self.slot_R]


class KeysValues:
    """Keys and values of one attention of one layer."""

    def __init__(self) -> None:
        self.k: Tensor | None = None
        self.v: Tensor | None = None

    def append(self, k_BNTH: Tensor, v_BNTH: Tensor) -> tuple[Tensor, Tensor]:
        """Take up the keys and values of a chunk of tokens; return all so far."""
        if self.k is not None and self.v is not None:
            k_BNTH, v_BNTH = torch.cat((self.k, k_BNTH), dim=2), torch.cat((self.v, v_BNTH), dim=2)
        self.k, self.v = k_BNTH, v_BNTH
        return k_BNTH, v_BNTH

    def place(self, k_RNH: Tensor, v_RNH: Tensor, slots: ExtraSlots) -> tuple[Tensor, Tensor]:
        """Take up the keys and values of new extra rows; return all slots."""
        self.k, self.v = slots.scatter(k_RNH, self.k), slots.scatter(v_RNH, self.v)
        return self.k, self.v


class Memories:
    """What the branches of one layer remember, by their names."""

    def __init__(self) -> None:
        self.by_branch: dict[str, KeysValues] = {}

    def of(self, branch: Branch) -> KeysValues | None:
        """The memory of a branch, empty at first; None for one that remembers nothing."""
        return self.by_branch.setdefault(branch.name, KeysValues()) if branch.remembers else None

    def __getitem__(self, name: str) -> KeysValues:
        return self.by_branch[name]


class KVCache:
    """The memory of one batch of growing sequences. Give it to `MetaTransformer` with each next chunk of
    tokens."""

    def __init__(self, n_layers: int) -> None:
        self.layers = [Memories() for _ in range(n_layers)]
        self.facts: Facts | None = None
        """Of all tokens taken up so far, which are the keys."""
        self.position_ids_BK: Tensor | None = None
        self.of_base: Any = None
        """What a base of transformers keeps beside, in a Cache of its own (`model.adapted`)."""

    @property
    def length(self) -> int:
        """Number of tokens taken up so far, K."""
        return 0 if self.facts is None else self.facts.n

    def advance(self, extra_BT: Tensor, position_ids_BT: Tensor) -> None:
        """Take up which of a chunk's tokens are extra, and where they stand."""
        ids, new = (
            self.position_ids_BK,
            Facts.of(extra_BT.shape[1], extra_BT, first=self.length, device=extra_BT.device),
        )
        position_ids_BT = position_ids_BT.expand_as(extra_BT)
        self.facts = new if self.facts is None else self.facts.then(new)
        self.position_ids_BK = position_ids_BT if ids is None else torch.cat((ids, position_ids_BT), dim=1)

    def extra_slots(self, extra_BT: Tensor) -> ExtraSlots:
        """The slots of the extra rows of the chunk that was taken up last."""
        extra_BK = self._extra_BK()
        before_B = extra_BK[:, : -extra_BT.shape[1]].sum(-1)
        sample_R, place_R = extra_BT.nonzero(as_tuple=True)
        slot_BT = before_B.unsqueeze(-1) + extra_BT.cumsum(dim=-1) - 1
        return ExtraSlots(sample_R, slot_BT[sample_R, place_R], len(extra_BT), self._n_slots())

    def extra_position_ids(self) -> Tensor:
        """Positions of the extra tokens by slot, [B, M]; empty slots hold the position of some other token."""
        assert self.position_ids_BK is not None, "the cache is empty"
        extra_first_BK = (~self._extra_BK()).int().argsort(dim=-1, stable=True)
        return self.position_ids_BK.gather(1, extra_first_BK[:, : self._n_slots()])

    def _extra_BK(self) -> Tensor:
        assert self.facts is not None, "the cache is empty"
        return self.facts.is_extra_BK

    def _n_slots(self) -> int:
        return int(self._extra_BK().sum(dim=-1).max())
