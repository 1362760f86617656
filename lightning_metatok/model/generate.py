"""Sampling from a model, token by token, with a key-value cache.

The prompt is read in one pass; then each new token is one pass of length 1. New tokens are ordinary tokens:
the prompt's meta-tokens stay where they are, and the caller forbids the meta-token's id.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model.cache import KVCache
from lightning_metatok.model.transformer import MetaTransformer


@torch.no_grad()
def generate(
    model: MetaTransformer,
    tokens_BT: Tensor,
    meta_mask_BT: Tensor | None = None,
    position_ids_BT: Tensor | None = None,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    forbidden_ids: Sequence[int] = (),
    stop_id: int | None = None,
) -> Tensor:
    """Continue every prompt of a batch by `max_new_tokens` tokens.

    Args:
        model: in any mode; it generates without dropout and is left in the mode it was in.
        tokens_BT: prompts of one length.
        meta_mask_BT: bool, True at the prompts' meta-tokens, whose number may differ; None: there are none.
        position_ids_BT: positions of the prompts' tokens; None: 0, 1, 2, ... New tokens go on with those, or have the
            positions that the model predicts, where its encoding does that. Not with others: nobody says how ids go on.
        max_new_tokens: how many tokens to add.
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: sample among this many likeliest tokens.
        top_p: sample among the fewest likeliest tokens that hold this much probability together.
        seed: of the sampling; None draws from torch's own generator.
        forbidden_ids: ids never generated, such as the meta-token's.
        stop_id: a sample that has generated this id is filled up with it.

    Returns:
        Prompts and continuations, [B, T + max_new_tokens].

    Raises:
        UserError: an option is out of range, or the position table is too short for the whole sequence.
    """
    _check(max_new_tokens, temperature, top_k, top_p)
    # The last new token is never read, so it needs no position.
    predicts = model.positions.predicts_ids
    if not predicts:
        assert position_ids_BT is None, "new tokens need positions, which only an encoding that predicts them has"
        model.check_length(tokens_BT.shape[1] + max_new_tokens - 1)
    ids_BT = position_ids_BT
    generator = None
    if seed is not None:
        generator = torch.Generator(tokens_BT.device).manual_seed(seed)
    cache = KVCache(model.config.n_layers)
    finished_B = torch.zeros(len(tokens_BT), dtype=torch.bool, device=tokens_BT.device)
    chunk_BT, mask_BT, pieces = tokens_BT, meta_mask_BT, [tokens_BT]
    was_training = model.training
    model.eval()
    try:
        for _ in range(max_new_tokens):
            hidden_BTD = model(chunk_BT, mask_BT, ids_BT, cache=cache, return_hidden=True)
            if predicts:
                ids_BT = model.positions.id_logits(hidden_BTD[:, -1:]).argmax(dim=-1)
            logits_BV = model.logits(hidden_BTD[:, -1]).float()
            logits_BV[:, list(forbidden_ids)] = -torch.inf
            next_B = _sample(logits_BV, temperature, top_k, top_p, generator)
            if stop_id is not None:
                next_B = torch.where(finished_B, stop_id, next_B)
                finished_B = finished_B | (next_B == stop_id)
            chunk_BT, mask_BT = next_B.unsqueeze(-1), None
            pieces.append(chunk_BT)
            if stop_id is not None and bool(finished_B.all()):
                missing = max_new_tokens + 1 - len(pieces)
                pieces.append(chunk_BT.expand(-1, missing))
                break
    finally:
        model.train(was_training)
    return torch.cat(pieces, dim=1)


def _sample(
    logits_BV: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """One token a sample, [B]."""
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    # Near 0 and near infinity a quotient would overflow, or 0 / 0 and inf / inf meet; the shift is what softmax does.
    floats = torch.finfo(logits_BV.dtype)
    logits_BV = logits_BV - logits_BV.amax(dim=-1, keepdim=True)
    logits_BV = logits_BV / min(max(temperature, floats.tiny), floats.max)
    if top_k is not None:
        least_B1 = logits_BV.topk(min(top_k, logits_BV.shape[-1])).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
    if top_p is not None:
        sorted_BV, ids_BV = logits_BV.softmax(dim=-1).sort(dim=-1, descending=True)
        # What stands before a token already holds top_p: the token is not needed. The first is always kept.
        surplus_BV = sorted_BV.cumsum(dim=-1) - sorted_BV >= top_p
        logits_BV = logits_BV.masked_fill(surplus_BV.scatter(-1, ids_BV, surplus_BV), -torch.inf)
    return torch.multinomial(logits_BV.softmax(dim=-1), 1, generator=generator).squeeze(-1)


def _check(max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None) -> None:
    checks = {
        "max_new_tokens": (max_new_tokens, max_new_tokens >= 1, "at least 1"),
        "temperature": (temperature, temperature >= 0, "0 (greedy) or more"),
        "top_k": (top_k, top_k is None or top_k >= 1, "at least 1"),
        "top_p": (top_p, top_p is None or 0 < top_p <= 1, "a number in (0, 1]"),
    }
    for key, (value, right, expected) in checks.items():
        if not right:
            raise UserError(f"{key}={value!r}: expected {expected}")
