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

from dataclasses import dataclass, fields

import torch
from torch import Tensor

NOT_SCORED = -100
"""The target at positions without loss; the default `ignore_index` of `torch.nn.functional.cross_entropy`."""


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

    tokens_BT: Tensor
    targets_BT: Tensor
    meta_mask_BT: Tensor
    document_ids_BT: Tensor
    position_ids_BT: Tensor

    @property
    def n_source_tokens(self) -> int:
        """How many tokens are source tokens. Waits for the device unless the batch is on the CPU."""
        return int((~self.meta_mask_BT).sum())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Return this batch on `device`."""
        return Batch(**{f.name: getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)})

    def pin_memory(self) -> "Batch":
        """Return this batch in page-locked memory, which a DataLoader with `pin_memory=True` asks for."""
        return Batch(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})


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
