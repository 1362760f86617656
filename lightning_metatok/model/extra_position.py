"""Which position an extra token has: one of its own, as any token, or that of its neighbour in the text.

    text     a b c x d e f x        ids of a batch      0 1 2 3 4 5 6 7        tokens are counted, extra ones or not
    own      0 1 2 3 4 5 6 7        the paper's (arXiv 2509.16278), landmarks, AnLLM
    last     0 1 2 2 3 4 5 5        of the text token before it: KSA (arXiv 2604.24432), SSA
    next     0 1 2 3 3 4 5 6        of the text token behind it: UniGist, HiLS

With the last two text has the positions that it has without extra tokens, so that a model reads the same text at the
same distances with few of them and with many. No position at all: one of these, and `model.drop_positions=both`.
"""

from typing import Literal

import torch
from torch import Tensor

ExtraPosition = Literal["own", "last", "next"]


def places_of(
    choice: str,
    position_ids_BT: Tensor,
    extra_BT: Tensor,
    document_ids_BT: Tensor | None = None,
    *,
    before_B1: Tensor | None = None,
) -> Tensor:
    """Return the positions that tokens have, int64 [B, T].

    Args:
        choice: an `ExtraPosition`.
        position_ids_BT: ids that count all tokens of a document. extra_BT: bool, True at extra tokens.
        document_ids_BT: of each token, those of one next to each other; None: one a sample.
        before_B1: extra tokens of the same document before these; None: there are none.
    """
    if choice == "own":
        return position_ids_BT
    before_BT = extra_BT.cumsum(dim=1) - extra_BT.long()
    if before_B1 is not None:
        before_BT = before_BT + before_B1
    if document_ids_BT is not None:
        starts_BT = torch.ones_like(extra_BT)
        starts_BT[:, 1:] = document_ids_BT[:, 1:] != document_ids_BT[:, :-1]
        before_BT = before_BT - (before_BT * starts_BT).cummax(dim=1).values
    ids_BT = position_ids_BT - before_BT
    return torch.where(extra_BT, (ids_BT - 1).clamp(min=0), ids_BT) if choice == "last" else ids_BT
