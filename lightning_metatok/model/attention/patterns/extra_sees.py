"""What a query sees beyond its own window or chunk: earlier extra tokens, and for extra tokens more or less.

             text sees            an extra token sees
earlier      extra tokens         extra tokens            information travels from extra token to extra token
own          extra tokens         nothing                 each holds its own surroundings alone
all          extra tokens         all before it           each may hold all before it
"""

from typing import Literal

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens

ExtraSees = Literal["earlier", "own", "all"]


def beyond(extra_sees: ExtraSees, q: Tokens, k: Tokens) -> Tensor:
    """Return which pairs see each other beyond windows and chunks, as `Pattern.allowed` does."""
    if extra_sees == "own":
        return k.extra & ~q.extra
    return k.extra | q.extra if extra_sees == "all" else k.extra


def needed_beyond(extra_sees: ExtraSees, facts: Facts, rows: slice) -> Tensor:
    """Return which keys that may ask for, as `Pattern.needed` does."""
    if extra_sees == "all":
        return facts.is_extra_BK | facts.is_extra_BK[:, rows].any(dim=1, keepdim=True)
    return facts.is_extra_BK


def lasts_beyond(extra_sees: ExtraSees, facts: Facts) -> Tensor:
    """Return which keys that may ask for later, as `Pattern.lasts` does."""
    return torch.ones_like(facts.is_extra_BK) if extra_sees == "all" else facts.is_extra_BK


def share_beyond(extra_sees: ExtraSees, extra_share: float) -> float:
    """Return the share of pairs beyond windows and chunks that is seen."""
    f = extra_share
    return {"earlier": f, "own": f * (1 - f), "all": f + (1 - f) * f}[extra_sees]


def said(extra_sees: ExtraSees) -> str:
    """Return what a rule's name says of it."""
    return "" if extra_sees == "earlier" else f", extra_sees={extra_sees}"
