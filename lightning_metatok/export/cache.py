"""Our memory of generation inside a Cache of transformers: dynamic, static, offloaded, as its user likes.

    layers 0 .. L - 1      keys and values of self-attention
    then, layer by layer   those of what a mechanism adds, zeros at rows that it does not work on
    the last one           what is known of each token: whether it is an extra one (keys), and its position (values)

Whatever transformers does to a cache, such as reordering or cropping it, it does to all of them alike, so that the
facts of tokens stay with their keys. A branch that only extra tokens take part in costs as much there as
self-attention, because a Cache has one length; `model.generate` has the smaller memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from lightning_metatok.errors import UserError
from lightning_metatok.model import TransformerConfig
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.branch import SELF_ATTENTION, Branch
from lightning_metatok.model.cache import ExtraSlots, KeysValues, KVCache, Memories


@dataclass(frozen=True)
class CacheLayout:
    """Which layer of a Cache belongs to which branch of which block."""

    by_layer: Sequence[Mapping[str, int]]

    @classmethod
    def of(cls, config: TransformerConfig) -> "CacheLayout":
        """Return that of a model of this shape."""
        by_layer: list[dict[str, int]] = [{SELF_ATTENTION.name: layer} for layer in range(config.n_layers)]
        taken = config.n_layers
        for layer, places in enumerate(by_layer):
            for name in config.added(layer):
                places[name] = taken
                taken += 1
        return cls(by_layer)

    @property
    def facts(self) -> int:
        """The layer that holds what is known of tokens."""
        return sum(map(len, self.by_layer))

    @property
    def n(self) -> int:
        """How many layers a Cache must have."""
        return self.facts + 1


class CacheOfTransformers(KVCache):
    """A `KVCache` that keeps nothing itself; made anew for each forward pass."""

    def __init__(self, cache: Cache, config: TransformerConfig, keep_BK: Tensor | None) -> None:
        """Wrap a Cache.

        Args:
            cache: of transformers.
            config: of the model.
            keep_BK: the attention mask of all tokens so far and those to come, False at padding; None: there is none.

        Raises:
            UserError: the Cache was made for another model.
        """
        super().__init__(config.n_layers)
        self.cache, self.layout = cache, CacheLayout.of(config)
        if cache.layer_class_to_replicate is None and len(cache.layers) != self.layout.n:
            raise UserError(
                f"past_key_values has {len(cache.layers)} layers: expected {self.layout.n}, "
                "as a Cache that is made with config=model.config has"
            )
        self.keep_BK = keep_BK
        self.past = int(cache.get_seq_length())
        self.extra_BT = torch.zeros(0, 0, dtype=torch.bool)
        self.unused: set[int] = set()
        self.layers = [_Layer(self, places) for places in self.layout.by_layer]

    @property
    def length(self) -> int:
        """Number of tokens taken up so far, K."""
        return self.past if self.facts is None else self.facts.n

    @property
    def extra_before_B1(self) -> Tensor | None:
        if not self.past:
            return None
        extra_B1K1 = getattr(self.cache.layers[self.layout.facts], "keys", None)
        assert isinstance(extra_B1K1, Tensor), "a Cache that is filled has keys"
        return (extra_B1K1[:, 0, : self.past, 0] > 0.5).sum(dim=1, keepdim=True)

    def advance(self, extra_BT: Tensor, position_ids_BT: Tensor) -> None:
        """Take up which of a chunk's tokens are extra, and where they stand."""
        assert self.facts is None, "one chunk a forward pass"
        self.extra_BT = extra_BT
        position_ids_BT = position_ids_BT.expand_as(extra_BT)
        extra, ids = (x[:, None, :, None].float() for x in (extra_BT, position_ids_BT))
        self.n = self.past + extra_BT.shape[1]
        extra_B1K1, ids_B1K1 = self.update(extra, ids, self.layout.facts)
        document_BK = None if self.keep_BK is None else self.keep_BK[:, : self.n].long()
        place_1K = torch.arange(self.n, device=extra_BT.device)[None]
        self.facts = Facts(place_1K, extra_B1K1[:, 0, :, 0] > 0.5, document_BK)
        self.position_ids_BK = ids_B1K1[:, 0, :, 0].round().long()
        self.unused = set(range(self.layout.facts))

    def update(self, k_BNTH: Tensor, v_BNTH: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Put a chunk's keys and values into a layer of the Cache; return all so far."""
        self.unused.discard(layer)
        k_BNKH, v_BNKH = self.cache.update(k_BNTH, v_BNTH, layer)
        return k_BNKH[:, :, : self.n], v_BNKH[:, :, : self.n]

    def last_k(self, layer: int) -> Tensor | None:
        """The key of the last token before the chunk in a layer of the Cache, [B, N, H]; None: there is none."""
        k_BNKH = getattr(self.cache.layers[layer], "keys", None) if self.past else None
        return None if k_BNKH is None else k_BNKH[:, :, self.past - 1]

    def spread(self, x_RNH: Tensor) -> Tensor:
        """Rows of the chunk's extra tokens at their places, zeros elsewhere, [B, N, T, H]."""
        all_BTNH = x_RNH.new_zeros(*self.extra_BT.shape, *x_RNH.shape[1:])
        all_BTNH[self.extra_BT] = x_RNH
        return all_BTNH.transpose(1, 2)

    def slots(self, x_BNKH: Tensor) -> Tensor:
        """Rows of extra tokens alone by slot, [B, N, M, H]; behind a sample's own stand some others."""
        index = self._extra_first()[:, None, :, None].expand(-1, x_BNKH.shape[1], -1, x_BNKH.shape[3])
        return x_BNKH.gather(2, index)

    def finish(self, like_BNTH: Tensor) -> None:
        """Give layers of branches that had nothing to work on as many rows as all others have."""
        for layer in sorted(self.unused):
            self.update(like_BNTH, like_BNTH, layer)


class _Layer(Memories):
    """What the branches of one layer remember."""

    def __init__(self, cache: CacheOfTransformers, places: Mapping[str, int]) -> None:
        super().__init__()
        self.by_branch = {name: _Part(cache, layer) for name, layer in places.items()}

    def of(self, branch: Branch) -> KeysValues | None:
        return self.by_branch[branch.name] if branch.remembers else None


class _Part(KeysValues):
    """Keys and values of one attention of one layer, in a layer of the Cache."""

    def __init__(self, cache: CacheOfTransformers, layer: int) -> None:
        super().__init__()
        self.cache, self.layer = cache, layer

    @property
    def last_k(self) -> Tensor | None:
        return self.cache.last_k(self.layer)

    def append(self, k_BNTH: Tensor, v_BNTH: Tensor) -> tuple[Tensor, Tensor]:
        return self.cache.update(k_BNTH, v_BNTH, self.layer)

    def place(self, k_RNH: Tensor, v_RNH: Tensor, slots: ExtraSlots) -> tuple[Tensor, Tensor]:
        k_BNKH, v_BNKH = self.cache.update(self.cache.spread(k_RNH), self.cache.spread(v_RNH), self.layer)
        return self.cache.slots(k_BNKH), self.cache.slots(v_BNKH)
