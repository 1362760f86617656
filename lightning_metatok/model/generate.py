"""Continuing sequences, token by token, with a key-value cache.

The prompt is read in one pass; then each new token is one pass, of itself and of extra tokens that may come behind it.
The model never chooses one: the caller forbids their ids and says where they come.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model import layout
from lightning_metatok.model.memory import Memory, cache_of
from lightning_metatok.model.sampling import Sampling
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
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    forbidden_ids: Sequence[int] = (),
    stop_id: int | None = None,
    memory: Memory | None = None,
    padding_B: Tensor | None = None,
) -> Tensor:
    """Continue every prompt of a batch by `max_new_tokens` tokens.

    Args:
        model, tokens_BT, meta_mask_BT, position_ids_BT, max_new_tokens: as for `stream`.
        forbidden_ids, stop_id, memory, padding_B: likewise.
        temperature, top_k, top_p, min_p, repetition_penalty, seed: as for `sampling.Sampling`.

    Returns:
        Prompts and continuations, [B, T + max_new_tokens].

    Raises:
        UserError: an option is out of range, or the position table is too short for the whole sequence.
    """
    steps = stream(
        model,
        tokens_BT,
        meta_mask_BT,
        position_ids_BT,
        max_new_tokens=max_new_tokens,
        sampling=Sampling(temperature, top_k, top_p, min_p, repetition_penalty, seed),
        forbidden_ids=forbidden_ids,
        stop_id=stop_id,
        memory=memory,
        padding_B=padding_B,
    )
    new = [next_B.unsqueeze(-1) for next_B in steps]
    if len(new) < max_new_tokens:  # all have stopped
        new.append(new[-1].expand(-1, max_new_tokens - len(new)))
    return torch.cat((tokens_BT, *new), dim=1)


@torch.no_grad()
def stream(
    model: MetaTransformer,
    tokens_BT: Tensor,
    meta_mask_BT: Tensor | None = None,
    position_ids_BT: Tensor | None = None,
    *,
    max_new_tokens: int,
    sampling: Sampling,
    forbidden_ids: Sequence[int] = (),
    stop_id: int | None = None,
    memory: Memory | None = None,
    padding_B: Tensor | None = None,
    samples: Sequence[int] | None = None,
    extra_next: Callable[[Tensor], Sequence[int]] | None = None,
) -> Iterator[Tensor]:
    """Yield the next token of every sample of a batch, [B], `max_new_tokens` times or until all have stopped.

    Args:
        model: in any mode; it generates without dropout and is left in the mode it was in.
        tokens_BT: prompts; shorter ones have padding before them, any ids.
        meta_mask_BT: bool, True at the prompts' meta-tokens, whose number may differ; None: there are none.
        position_ids_BT: positions of the prompts' tokens; None: 0, 1, 2, ... New tokens go on with those, or have the
            positions that the model predicts, where its encoding does that. Not with others: nobody says how ids go on.
        max_new_tokens: how many tokens to add.
        sampling: how each is chosen.
        forbidden_ids: ids never generated, such as the meta-token's.
        stop_id: a sample that has generated this id goes on with it.
        memory: what is kept of earlier tokens; None: all that the model's pattern needs.
        padding_B: tokens of padding before each prompt, which nobody sees; positions begin behind it. None: none.
        samples: numbers of the samples, which say what random numbers each gets; None: 0, 1, 2, ...
        extra_next: says of new tokens, [B], which extra tokens come behind them, by their ids; these are read, and not
            yielded. None: none come. Not where the model predicts positions.

    Raises:
        UserError: an option is out of range, the position table is too short for the whole sequence, or the model needs
            the tokens that `memory` forgets.
    """
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens={max_new_tokens!r}: expected at least 1")
    # The last new token is never read, so it needs no position.
    predicts = model.positions.predicts_ids
    assert not (predicts and extra_next), "nobody says which positions extra tokens have"
    if not predicts:
        assert position_ids_BT is None, "new tokens need positions, which only an encoding that predicts them has"
        model.check_length(tokens_BT.shape[1] + max_new_tokens - 1)
    device, ids_BT = tokens_BT.device, position_ids_BT
    read_BT = tokens_BT
    if padding_B is not None:
        place_BT = torch.arange(tokens_BT.shape[1], device=device) - padding_B.unsqueeze(1)
        read_BT = torch.where(place_BT < 0, tokens_BT[:, -1:], tokens_BT)
        ids_BT = place_BT.clamp(min=0) if ids_BT is None else ids_BT
    draws_SB = sampling.draws(max_new_tokens, range(len(tokens_BT)) if samples is None else samples)
    draws_SB = None if draws_SB is None else draws_SB.to(device)
    present_BV = None
    if sampling.repetition_penalty != 1:
        nothing_BV = torch.zeros(len(tokens_BT), model.config.vocab_size, dtype=torch.bool, device=device)
        present_BV = nothing_BV.scatter_(1, read_BT, True)
    forbidden = torch.tensor(sorted(set(forbidden_ids)), dtype=torch.int64, device=device)
    cache = cache_of(model, memory, padding_B)
    finished_B = torch.zeros(len(tokens_BT), dtype=torch.bool, device=device)
    chunk_BT, mask_BT = tokens_BT, meta_mask_BT
    was_training = model.training
    model.eval()
    turned = layout.pays(model, rows=len(tokens_BT), new=max_new_tokens)
    try:
        with layout.by_columns(model) if turned else nullcontext():
            for step in range(max_new_tokens):
                hidden_BTD = model(chunk_BT, mask_BT, ids_BT, cache=cache, return_hidden=True)
                if predicts:
                    ids_BT = model.positions.id_logits(hidden_BTD[:, -1:]).argmax(dim=-1)
                logits_BV = model.logits(hidden_BTD[:, -1]).float().index_fill_(1, forbidden, -torch.inf)
                next_B = sampling.choose(logits_BV, None if draws_SB is None else draws_SB[step], present_BV)
                if stop_id is not None:
                    next_B = torch.where(finished_B, stop_id, next_B)
                    finished_B = finished_B | (next_B == stop_id)
                chunk_BT, mask_BT = next_B.unsqueeze(-1), None
                if extra_next is not None and (extra := extra_next(next_B)):
                    extra_BM = torch.tensor([list(extra)], device=device).expand(len(next_B), -1)
                    chunk_BT = torch.cat((chunk_BT, extra_BM), dim=1)
                    mask_BT = (torch.arange(chunk_BT.shape[1], device=device) > 0).expand(len(next_B), -1)
                if ids_BT is not None and not predicts:
                    ids_BT = ids_BT[:, -1:] + 1 + torch.arange(chunk_BT.shape[1], device=device)
                if present_BV is not None:
                    present_BV.scatter_(1, next_B.unsqueeze(-1), True)
                yield next_B
                if stop_id is not None and bool(finished_B.all()):
                    return
    finally:
        model.train(was_training)
