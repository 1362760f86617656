"""One training batch: five tensors that say everything, so that nothing downstream guesses it from token ids.

    position    0     1     2      3     4        M = <|meta|>
    token       the   cat   M      sat   down
    target      cat   ✗     sat    down  ✗        ✗ = -100, not scored
    retarget    cat   sat   sat    down  ✗        `retarget=True`: look past meta-tokens

A meta-token is never a target, but its own output is scored on the source token that follows it: each source token is
scored once, whether or not meta-tokens stand before it. The first of a row never is, nor the first of a document that
does not see the one before it: nothing tells a model which it is. So all arms are scored on the same tokens. Position 1
is the ambiguous one; the paper's "shifted and removed" allows both readings. Source: arXiv 2509.16278,
pre-training; Goyal et al. 2024, "Think before you speak: training language models with pause tokens".
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

NOT_SCORED = -100
"""The target at positions without loss; the default `ignore_index` of `torch.nn.functional.cross_entropy`."""


@dataclass(frozen=True)
class OnHost:
    """Counts of a batch that the host took before it went to a device: asking the device makes both wait.

    Attributes:
        n_scored: positions with a target.
        extra_of_rows: meta-tokens of each row that has some.
        extra_of_documents: of each document of each row, likewise.
    """

    n_scored: int
    extra_of_rows: tuple[int, ...]
    extra_of_documents: tuple[int, ...]

    @classmethod
    def of(cls, batch: "Batch") -> "OnHost":
        """Count; the batch is on the CPU."""
        meta_BT = batch.meta_mask_BT
        rows = tuple(n for n in meta_BT.sum(dim=1).tolist() if n)
        of_documents = rows
        if bool((batch.document_ids_BT != batch.document_ids_BT[:, :1]).any()):
            row_R, at_R = meta_BT.nonzero(as_tuple=True)
            documents_R2 = torch.stack((row_R, batch.document_ids_BT[row_R, at_R]), dim=1)
            of_documents = tuple(documents_R2.unique(dim=0, return_counts=True)[1].tolist())
        return cls(int((batch.targets_BT >= 0).sum()), rows, of_documents)


@dataclass(frozen=True)
class Batch:
    """What a model reads and what it is scored on; every tensor has shape [B, T].

    Attributes:
        tokens_BT: int64 token ids, meta-tokens included.
        targets_BT: int64 ids of the tokens to predict; -100 where nothing is scored.
        meta_mask_BT: bool, True at meta-tokens.
        document_ids_BT: int64, equal for two positions of a row where they may see each other.
        position_ids_BT: int64 positions, for positional encodings.
    """

    # No field, so that a batch that is made from this one's tensors, some of them changed, has no counts of it.
    __slots__ = ("__dict__", "__weakref__", "_on_host")

    tokens_BT: Tensor
    targets_BT: Tensor
    meta_mask_BT: Tensor
    document_ids_BT: Tensor
    position_ids_BT: Tensor

    @property
    def on_host(self) -> OnHost | None:
        """What the host knows of a batch that it has moved to a device; None: nothing."""
        return getattr(self, "_on_host", None)

    @property
    def n_source_tokens(self) -> int:
        """How many tokens are source tokens. Waits for the device unless the batch is on the CPU."""
        return int((~self.meta_mask_BT).sum())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Return this batch on `device`."""
        moved = self._each(lambda x: x.to(device, non_blocking=non_blocking))
        if self.tokens_BT.device.type == "cpu" and moved.tokens_BT.device.type != "cpu":
            object.__setattr__(moved, "_on_host", OnHost.of(self))
        return moved

    def pin_memory(self) -> "Batch":
        """Return this batch in page-locked memory, which a DataLoader with `pin_memory=True` asks for."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(**{f.name: change(getattr(self, f.name)) for f in fields(self)})


def next_token_targets(
    tokens_BT: Tensor,
    meta_mask_BT: Tensor,
    retarget: bool = False,
    document_ids_BT: Tensor | None = None,
) -> Tensor:
    """Return the targets [B, T]: the next token, -100 where that is a meta-token, unforeseeable, or not there.

    The number of scored positions in a row is that of its source tokens, less the first of each document. With
    `retarget` each position is scored on the next source token, over any run of meta-tokens.

    Args:
        document_ids_BT: equal where two positions may see each other; None: all of a row may.
    """
    B, T = tokens_BT.shape
    none_B1 = tokens_BT.new_full((B, 1), NOT_SCORED)
    slots_T = torch.arange(T, device=tokens_BT.device)
    source_slot_BT = torch.where(meta_mask_BT, T, slots_T)  # T stands for "none", the column appended below
    if retarget:
        source_slot_BT = source_slot_BT.flip(1).cummin(dim=1).values.flip(1)
    next_BT = torch.cat([source_slot_BT[:, 1:], source_slot_BT.new_full((B, 1), T)], dim=1)
    targets_BT = torch.cat([tokens_BT, none_B1], dim=1).gather(1, next_BT)
    unforeseeable_BT = (~meta_mask_BT).cumsum(dim=1) == 0  # before the first source token
    if document_ids_BT is not None:
        next_document_BT = torch.cat([document_ids_BT, none_B1], dim=1).gather(1, next_BT)
        unforeseeable_BT = unforeseeable_BT | (next_document_BT != document_ids_BT)
    return targets_BT.masked_fill(unforeseeable_BT, NOT_SCORED)
