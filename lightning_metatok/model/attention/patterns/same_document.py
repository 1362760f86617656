"""The query's own document: what keeps documents that are packed into one block apart."""

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns.base import Pattern


class SameDocument(Pattern):
    """Keys of the query's own document, before and behind it.

      a a * b b *
    a # # # . . .
    a # # # . . .
    * # # # . . .
    b . . . # # #
    b . . . # # #
    * . . . # # #
    """

    example = Facts.of(6, torch.tensor([[False, False, True, False, False, True]]), torch.tensor([[0, 0, 0, 1, 1, 1]]))

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        if q.document is None or k.document is None:
            return torch.ones_like(k.place, dtype=torch.bool)
        return q.document == k.document

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        if facts.document_BK is None:
            return torch.ones_like(facts.place_BK, dtype=torch.bool)
        # Documents are numbered from any number on; a table of those about says which are needed.
        ids_BK = facts.document_BK - facts.document_BK.min()
        about_BD = torch.zeros(len(ids_BK), int(ids_BK.max()) + 1, dtype=torch.bool, device=ids_BK.device)
        return about_BD.scatter(1, ids_BK[:, rows], True).gather(1, ids_BK)

    def lasts(self, facts: Facts) -> Tensor:
        if facts.document_BK is None:
            return torch.ones_like(facts.place_BK, dtype=torch.bool)
        return facts.document_BK == facts.document_BK[:, -1:]
