"""HOW, by PyTorch's flex attention: the rule of a sight is asked pair by pair inside one kernel, and no table is made.

On CUDA the kernel is compiled; on a CPU PyTorch has no backward of it, and without compilation computes all scores, so
that there it is a check and no way to train. `auto` does not take it: with extra tokens at random places no block of
keys is empty, and each pair asks for facts of both. On an H200 sdpa with a table is nine times as fast at 8,192 tokens.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from lightning_metatok.errors import UserError
from lightning_metatok.model.attention.backends.reference import Score
from lightning_metatok.model.attention.sight import Sight

NAME = "flex"
TAKES_SCORES = False
TAKES_SIGHTS = True
TAKES_MASKS = True
attend_ragged = None


def why_not(*, device: torch.device, dtype: torch.dtype, dense_mask: bool, score: bool) -> str | None:
    """Why this backend cannot do the job, or None."""
    if score:
        return "it cannot transform scores by whole rows"
    if device.type != "cuda" and torch.is_grad_enabled():
        return f"PyTorch has no backward of it on {device.type}"
    return None


def attend(
    q_BNQH: Tensor,
    k_BNKH: Tensor,
    v_BNKH: Tensor,
    *,
    mask: Tensor | None = None,
    sight: Sight | None = None,
    score: Score | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """As `reference.attend`, without `score` and dropout; `sight` in place of a mask.

    Raises:
        UserError: dropout of attention weights is asked for.
    """
    assert score is None, "flex cannot transform scores by whole rows"
    if dropout:
        raise UserError(f"model.dropout={dropout}: expected 0 with model.attention_backend='flex', which has none")
    options: dict[str, Any] = {}
    if sight is not None:
        options["block_mask"] = _of_sight(sight)
    elif mask is not None and mask.dtype == torch.bool:
        options["block_mask"] = _of_table(mask.expand(len(mask), 1, *mask.shape[-2:]))
    elif mask is not None:
        added = mask
        options["score_mod"] = lambda s, b, h, q, k: s + added[b % len(added), 0, q, k]
    elif q_BNQH.shape[2] > 1:
        n = q_BNQH.shape[2]
        options["block_mask"] = _blocks(lambda b, h, q, k: k <= q, None, n, n, q_BNQH.device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*flex_attention called without torch.compile.*")
        out: Tensor = _kernel(q_BNQH.device.type)(q_BNQH, k_BNKH, v_BNKH, **options)
    return out


@dataclass
class _Token:
    """What a rule asks of one token, as `facts.Tokens` has it, without the laziness that a tracer cannot follow."""

    place: Tensor
    extra: Tensor
    document: Tensor | None
    chunk: Tensor
    in_document: Tensor
    segment: Tensor
    behind: Tensor
    prompt: Tensor


def _of_sight(sight: Sight) -> BlockMask:
    """The rule as a mask of blocks, made once for all layers that share the sight."""
    if (made := _MADE.get(id(sight))) is not None and made[0] is sight:
        return made[1]
    facts, rule, first = sight.facts, sight.rule, sight.queries.start
    counted = (facts.chunk_BK, facts.in_document_BK, facts.segment_BK, facts.behind_BK, facts.prompt_BK)
    known = (facts.place_BK, facts.is_extra_BK, *counted)
    B = max(map(len, known))
    place, extra, *others = (x.expand(B, -1).contiguous() for x in known)
    document = None if facts.document_BK is None else facts.document_BK.expand(B, -1).contiguous()

    def of(b: Tensor, i: Tensor) -> Any:
        own = None if document is None else document[b, i]
        return _Token(place[b, i], extra[b, i], own, *(x[b, i] for x in others))

    def seen(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return rule.allowed(of(b, q + first), of(b, k))

    found = _blocks(seen, B, sight.n_queries, facts.n, facts.place_BK.device)
    _MADE.clear()
    _MADE[id(sight)] = sight, found
    return found


_MADE: dict[int, tuple[Sight, BlockMask]] = {}
"""Of the sight that was asked last: layers that see the same ask one behind the other."""


def _of_table(mask: Tensor) -> BlockMask:
    return _blocks(
        lambda b, h, q, k: mask[b % len(mask), 0, q, k], len(mask), mask.shape[-2], mask.shape[-1], mask.device
    )


def _blocks(seen: Callable[..., Tensor], B: int | None, Q: int, K: int, device: torch.device) -> BlockMask:
    found: BlockMask = _maker(device.type)(seen, B, None, Q, K, device=str(device))
    return found


@lru_cache(maxsize=2)
def _maker(device: str) -> Callable[..., BlockMask]:
    """Compiled it does not make the table that it condenses into blocks."""
    return cast(Callable[..., BlockMask], torch.compile(create_block_mask) if device == "cuda" else create_block_mask)


@lru_cache(maxsize=2)
def _kernel(device: str) -> Callable[..., Tensor]:
    return cast(Callable[..., Tensor], torch.compile(flex_attention) if device == "cuda" else flex_attention)
