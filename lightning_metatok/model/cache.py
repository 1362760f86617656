"""What generation remembers: keys and values of all tokens, and apart from them those of the meta-tokens.

    self-attention   [B, N, K, H]    grows by every token
    meta-attention   [B, N, M, H]    grows by meta-tokens only

Samples hold different numbers of meta-tokens: a sample's own fill its first slots, and the rest is empty,
behind every query's causal sight.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MetaSlots:
    """Where the R new meta rows of a chunk go in [B, N, M, H]; the same for all layers."""

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

    def place(self, k_RNH: Tensor, v_RNH: Tensor, slots: MetaSlots) -> tuple[Tensor, Tensor]:
        """Take up the keys and values of new meta rows; return all slots."""
        self.k, self.v = slots.scatter(k_RNH, self.k), slots.scatter(v_RNH, self.v)
        return self.k, self.v


class KVCache:
    """The memory of one batch of growing sequences. Give it to `MetaTransformer` with each next chunk of
    tokens."""

    def __init__(self, n_layers: int) -> None:
        self.self_attention = [KeysValues() for _ in range(n_layers)]
        self.meta_attention = [KeysValues() for _ in range(n_layers)]
        self.position_ids_BK: Tensor | None = None
        self.meta_mask_BK: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of tokens taken up so far, K."""
        return 0 if self.meta_mask_BK is None else self.meta_mask_BK.shape[1]

    def advance(self, meta_mask_BT: Tensor, position_ids_BT: Tensor) -> MetaSlots:
        """Take up where a chunk's meta-tokens and positions are; return the slots of its meta rows."""
        old, ids = self.meta_mask_BK, self.position_ids_BK
        before_B = meta_mask_BT.new_zeros(len(meta_mask_BT), dtype=torch.long) if old is None else old.sum(-1)
        position_ids_BT = position_ids_BT.expand_as(meta_mask_BT)
        self.meta_mask_BK = meta_mask_BT if old is None else torch.cat((old, meta_mask_BT), dim=1)
        self.position_ids_BK = position_ids_BT if ids is None else torch.cat((ids, position_ids_BT), dim=1)
        sample_R, place_R = meta_mask_BT.nonzero(as_tuple=True)
        slot_BT = before_B.unsqueeze(-1) + meta_mask_BT.cumsum(dim=-1) - 1
        n_slots = int(self.meta_mask_BK.sum(dim=-1).max())
        return MetaSlots(sample_R, slot_BT[sample_R, place_R], len(meta_mask_BT), n_slots)

    def meta_position_ids(self) -> Tensor:
        """Positions of the meta-tokens by slot, [B, M]; empty slots hold the position of some other token."""
        assert self.meta_mask_BK is not None, "the cache is empty"
        assert self.position_ids_BK is not None
        n_slots = int(self.meta_mask_BK.sum(dim=-1).max())
        metas_first_BK = (~self.meta_mask_BK).int().argsort(dim=-1, stable=True)
        return self.position_ids_BK.gather(1, metas_first_BK[:, :n_slots])
