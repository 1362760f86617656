"""What generation remembers: keys and values a branch, and the facts of the tokens that they are of.

    attention of all tokens      [B, N, K, H]    grows by every token
    attention of extra tokens    [B, N, M, H]    grows by extra tokens only

Rows are written in place into buffers that grow by a page. Where tokens are forgotten, those that are kept move
together whenever a page has filled up: a buffer holds what is kept, and less than two pages more. What a token may see
never depends on when that happens, since a rule says it.

Samples hold different numbers of extra tokens: a sample's own fill its first slots, and the rest is empty, behind every
query's causal sight. They may keep different numbers of tokens, too: the missing ones stand before the others, as
tokens of no document, which nobody sees, and so does the padding before a shorter prompt.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.branch import Branch

if TYPE_CHECKING:
    from lightning_metatok.model.attention.patterns import Pattern

PAGE = 256
"""Rows that a buffer grows by."""
NO_DOCUMENT = -1
Keeps = Callable[[Facts], Tensor]
"""Of the tokens so far, those that a later one may see: bool, which broadcasts to [B, K]."""


@dataclass(frozen=True)
class ExtraSlots:
    """Where the R new extra rows of a chunk go in [B, N, M, H]; the same for all layers."""

    sample_R: Tensor
    slot_R: Tensor
    n_samples: int
    n_slots: int

    def put(self, x_RNH: Tensor, into_BNMH: Tensor) -> None:
        """Write the new rows to their slots."""
        into_BNMH[self.sample_R, :, self.slot_R] = x_RNH

    def scatter(self, x_RNH: Tensor) -> Tensor:
        """The new rows at their slots, and zeros at all others, [B, N, M, H]."""
        n_heads, width = x_RNH.shape[1:]
        all_BNMH = x_RNH.new_zeros(self.n_samples, n_heads, self.n_slots, width)
        self.put(x_RNH, all_BNMH)
        return all_BNMH

    def gather(self, x_BNMH: Tensor) -> Tensor:
        """The new rows, [R, N, H]."""
        return x_BNMH[self.sample_R, :, self.slot_R]


class KeysValues:
    """Keys and values of one attention of one layer, in buffers whose first rows are filled."""

    def __init__(self, page: int = PAGE) -> None:
        self.page, self.n, self.by_slot = page, 0, False
        self._k: Tensor | None = None
        self._v: Tensor | None = None

    @property
    def k(self) -> Tensor:
        """Keys so far, [B, N, K, H]."""
        assert self._k is not None, "nothing was taken up yet"
        return self._k[:, :, : self.n]

    @property
    def v(self) -> Tensor:
        """Values so far, [B, N, K, H]."""
        assert self._v is not None, "nothing was taken up yet"
        return self._v[:, :, : self.n]

    @property
    def last_k(self) -> Tensor | None:
        """The key of the last token, [B, N, H]; None: there is none yet."""
        return self.k[:, :, -1] if self.n else None

    @property
    def rows(self) -> int:
        """Rows that there is room for."""
        return 0 if self._k is None else self._k.shape[2]

    def append(self, k_BNTH: Tensor, v_BNTH: Tensor) -> tuple[Tensor, Tensor]:
        """Take up the keys and values of a chunk of tokens; return all so far."""
        first, self.n = self.n, self.n + k_BNTH.shape[2]
        self._k, self._v = self._grown(self._k, k_BNTH), self._grown(self._v, v_BNTH)
        self._k[:, :, first : self.n], self._v[:, :, first : self.n] = k_BNTH, v_BNTH
        return self.k, self.v

    def place(self, k_RNH: Tensor, v_RNH: Tensor, slots: ExtraSlots) -> tuple[Tensor, Tensor]:
        """Take up the keys and values of new extra rows; return all slots."""
        self.n, self.by_slot = slots.n_slots, True
        like_BNRH = k_RNH.transpose(0, 1).expand(slots.n_samples, -1, -1, -1)
        self._k, self._v = self._grown(self._k, like_BNRH), self._grown(self._v, like_BNRH)
        slots.put(k_RNH, self._k)
        slots.put(v_RNH, self._v)
        return self.k, self.v

    def keep(self, index_BK: Tensor) -> None:
        """Forget all rows but those with these numbers, which move to the front in this order."""
        if self._k is None or self._v is None:
            return
        index_BNKH = index_BK[:, None, :, None].expand(-1, self._k.shape[1], -1, self._k.shape[3])
        k_BNKH, v_BNKH = self._k.gather(2, index_BNKH), self._v.gather(2, index_BNKH)
        self._k = self._v = None
        self.n = 0
        self.append(k_BNKH, v_BNKH)

    def _grown(self, buffer: Tensor | None, like_BNTH: Tensor) -> Tensor:
        """The buffer, with room for `n` rows. What is not written yet is 0: hidden scores must be finite."""
        if buffer is not None and self.n <= buffer.shape[2]:
            return buffer
        n_rows = -(-self.n // self.page) * self.page
        grown = like_BNTH.new_zeros(len(like_BNTH), like_BNTH.shape[1], n_rows, like_BNTH.shape[3])
        if buffer is not None:
            grown[:, :, : buffer.shape[2]] = buffer
        return grown


class Memories:
    """What the branches of one layer remember, by their names."""

    def __init__(self, page: int = PAGE) -> None:
        self.page = page
        self.by_branch: dict[str, KeysValues] = {}

    def of(self, branch: Branch) -> KeysValues | None:
        """The memory of a branch, empty at first; None for one that remembers nothing."""
        return self.by_branch.setdefault(branch.name, KeysValues(self.page)) if branch.remembers else None

    def __getitem__(self, name: str) -> KeysValues:
        return self.by_branch[name]


class KVCache:
    """The memory of one batch of growing sequences. Give it to `MetaTransformer` with each next chunk of tokens."""

    def __init__(
        self,
        n_layers: int,
        *,
        rule: "Pattern | None" = None,
        keeps: Keeps | None = None,
        padding_B: Tensor | None = None,
        page: int = PAGE,
    ) -> None:
        """Begin with nothing.

        Args:
            n_layers: of the model.
            rule: what tokens see, beside what the model's own pattern says. None: all.
            keeps: which tokens a later one may still see. None: nothing is forgotten.
            padding_B: tokens before each sample's first that are none. None: there are none.
            page: rows that buffers grow by.
        """
        self.layers = [Memories(page) for _ in range(n_layers)]
        self.rule, self.keeps, self.padding_B, self.page = rule, keeps, padding_B, page
        self.facts: Facts | None = None
        """Of the tokens that are kept, which are the keys."""
        self.position_ids_BK: Tensor | None = None
        self.beside: Any = None
        """What a model keeps in a form of its own, such as a base's Cache of transformers (`model.adapted`)."""
        self._taken_up, self._full_at = 0, page
        self._extra_B1: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of tokens taken up so far, forgotten ones and padding among them."""
        return self._taken_up

    @property
    def extra_before_B1(self) -> Tensor | None:
        """Number of extra tokens taken up so far, forgotten ones among them; None: nothing was taken up yet."""
        return self._extra_B1

    def closes_prompt(self, extra_BT: Tensor) -> bool:
        """Whether the first extra token of some sample, which has others before, is among those of the next chunk."""
        if self.facts is None:
            return False
        return bool((~self.facts.behind_BK[:, -1:] & extra_BT.any(dim=1, keepdim=True)).any())

    def advance(self, extra_BT: Tensor, position_ids_BT: Tensor) -> None:
        """Take up which of a chunk's tokens are extra, and where they stand; forget some earlier ones before."""
        n = extra_BT.shape[1]
        if self.keeps is not None and self.facts is not None and self.facts.n + n > self._full_at:
            self._forget(self.keeps)
            self._full_at = self.facts.n + self.page
        document_BT = None
        if self.facts is None and self.padding_B is not None:
            place_1T = torch.arange(n, device=extra_BT.device)[None]
            document_BT = torch.where(place_1T < self.padding_B.unsqueeze(1), NO_DOCUMENT, 0)
        new = Facts.of(n, extra_BT, document_BT, first=self._taken_up, device=extra_BT.device)
        ids, position_ids_BT = self.position_ids_BK, position_ids_BT.expand_as(extra_BT)
        self.facts = new if self.facts is None else self.facts.then(new)
        self.position_ids_BK = position_ids_BT if ids is None else torch.cat((ids, position_ids_BT), dim=1)
        self._taken_up += n
        taken_up_B1 = extra_BT.sum(dim=1, keepdim=True)
        self._extra_B1 = taken_up_B1 if self._extra_B1 is None else self._extra_B1 + taken_up_B1

    def _forget(self, keeps: Keeps) -> None:
        facts, ids_BK = self.facts, self.position_ids_BK
        assert facts is not None, "there is nothing to forget"
        assert ids_BK is not None, "there is nothing to forget"
        kept_BK = keeps(facts).expand(len(ids_BK), -1).clone()
        if facts.document_BK is not None:
            kept_BK &= facts.document_BK != NO_DOCUMENT
        kept_BK[:, -1] = True  # it says where the next token stands
        n_kept = int(kept_BK.sum(dim=1).max())
        if n_kept == facts.n:
            return
        index_BK, extra_BK = _last(kept_BK, n_kept), facts.is_extra_BK
        kept_slots_BM = self._by_slot(kept_BK & extra_BK)
        real_BK = kept_BK.gather(1, index_BK)
        left = facts.take(index_BK)
        if facts.document_BK is not None or not bool(real_BK.all()):
            left = replace(left, document_BK=torch.where(real_BK, 0, NO_DOCUMENT))
        left = replace(left, extra_BK=left.is_extra_BK & real_BK)
        self.facts, self.position_ids_BK = left, ids_BK.gather(1, index_BK)
        n_slots = self._n_slots()
        slots_BM = (~kept_slots_BM).int().argsort(dim=1, stable=True)[:, :n_slots]
        for memories in self.layers:
            for memory in memories.by_branch.values():
                memory.keep(slots_BM if memory.by_slot else index_BK)

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
        return self._by_slot(self.position_ids_BK)

    def extra_facts(self) -> Facts:
        """Facts of the extra tokens by slot; an empty slot is no extra token."""
        assert self.facts is not None, "the cache is empty"
        return self.facts.take(self._extra_first())

    def _by_slot(self, x_BK: Tensor) -> Tensor:
        return x_BK.gather(1, self._extra_first())

    def _extra_first(self) -> Tensor:
        return (~self._extra_BK()).int().argsort(dim=-1, stable=True)[:, : self._n_slots()]

    def _extra_BK(self) -> Tensor:
        assert self.facts is not None, "the cache is empty"
        return self.facts.is_extra_BK

    def _n_slots(self) -> int:
        return int(self._extra_BK().sum(dim=-1).max())


def _last(kept_BK: Tensor, n: int) -> Tensor:
    """Numbers of the kept ones in order, [B, n], behind some others where a sample keeps fewer."""
    return kept_BK.int().argsort(dim=1, stable=True)[:, -n:]
