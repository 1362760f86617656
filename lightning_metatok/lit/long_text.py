"""Loss by position in long documents: what a model makes of text beyond the length that it was trained on.

    windows   |-----|             each token with what stands before it in its window of the trained length; windows
                    |-----|       share a token, so that every one but the first of a document is scored
    sliding   |-----|             the same with windows that overlap: a token has nearly a whole window before it
                |-----|
    whole     |-----------|       the document at once

All ways score the same tokens of the same documents, which are all of one length: positions and ways differ in the
context alone, not in the text. Meta-tokens go into what is read by the rule of training.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lightning_metatok.analysis.effective_length import effective_length
from lightning_metatok.data import Batch, InjectionRule, MetaTokenizer, next_token_targets
from lightning_metatok.errors import UserError
from lightning_metatok.lit import targets
from lightning_metatok.model import MetaTransformer

SLIDING = "sliding"


@dataclass(frozen=True)
class Way:
    """How a document is read: `window` source tokens at once, each time `stride` of them new."""

    name: str
    window: int
    stride: int

    def windows(self, length: int) -> Iterator[tuple[int, int]]:
        """Yield (start, first token that is scored) of the windows of a document of `length` tokens."""
        start, scored = 0, 1  # nothing stands before the first
        while scored < length:
            start = min(start, length - self.window)
            yield start, scored
            start, scored = start + self.stride, start + self.window


@dataclass(frozen=True)
class Stretch:
    """Tokens `low` to `high` - 1 of all documents: loss in nats a source token, and in bits a byte of text."""

    low: int
    high: int
    nats: float
    bits_per_byte: float


@dataclass(frozen=True)
class Found:
    """What one way of reading gave: over all, and by position; stretches end at the trained length times 2^i."""

    way: Way
    whole: Stretch
    stretches: tuple[Stretch, ...]


def ways(trained: int, length: int, stride: int) -> list[Way]:
    """Return the three ways to read documents of `length` tokens with a model that was trained on `trained`."""
    window = min(trained, length)
    return [Way("windows", window, window - 1), Way(SLIDING, window, stride), Way("whole", length, length)]


@torch.no_grad()
def read(
    model: MetaTransformer,
    tokenizer: MetaTokenizer,
    documents_DN: Tensor,
    way: Way,
    *,
    trained: int,
    rule: InjectionRule | None,
    seed: int = 0,
    batch_size: int = 16,
) -> Found:
    """Read documents one way.

    Args:
        documents_DN: int64 source tokens [documents, length], on the CPU.
        trained: source tokens of a block in training. rule: how meta-tokens are put in; None: there are none.
        batch_size: windows that are read at once.

    Raises:
        UserError: the model has too few positions for a window, or its positions come from a task.
    """
    nll_DN = torch.zeros(documents_DN.shape, dtype=torch.float64)
    N = documents_DN.shape[1]
    for start, scored in way.windows(N):
        for first in range(0, len(documents_DN), batch_size):
            rows = slice(first, first + batch_size)
            batch = batch_of(documents_DN[rows, start : start + way.window], tokenizer, rule, seed, first)
            _check(model, batch.tokens_BT.shape[1])
            on_device = batch.to(model.head_weight.device)
            found = targets.Rows.of(model, on_device, separate_documents=False)
            nll_BW = targets.each(model, found).double().cpu().view(len(batch.tokens_BT), way.window - 1)
            nll_DN[rows, scored : start + way.window] = nll_BW[:, scored - start - 1 :]
    bytes_DN = tokenizer.bytes_V[documents_DN]
    stretches = tuple(_stretch(nll_DN, bytes_DN, low, high) for low, high in pairwise(_edges(trained, N)))
    return Found(way, _stretch(nll_DN, bytes_DN, 0, N), stretches)


def effective(found: Found, control: Found, trained: int) -> float | None:
    """Return the effective length of a way of reading, times the trained length; None: it cannot be said.

    The loss of each stretch is taken less that of the same tokens under `control`, windows that slide: what stands
    later in a document is other text, which may be easier by itself.
    """
    pairs = zip(found.stretches, control.stretches, strict=True)
    behind = {one.high / trained: one.nats - same.nats for one, same in pairs if one.high >= trained}
    return effective_length(behind, is_loss=True)


def batch_of(tokens_BS: Tensor, tokenizer: MetaTokenizer, rule: InjectionRule | None, seed: int, index: int) -> Batch:
    """Return source tokens with their meta-tokens: a row is one document, each source token but the first is scored."""
    mask_BT = torch.zeros_like(tokens_BS, dtype=torch.bool)
    tokens_BT, document_ids_BT = tokens_BS, torch.zeros_like(tokens_BS)
    position_ids_BT = torch.arange(tokens_BS.shape[1]).expand_as(tokens_BS)
    if rule is not None:
        options: dict[str, Any] = {"meta_id": tokenizer.meta_ids, "seed": seed, "after_ids": tokenizer.punctuation_ids}
        injected = [rule.in_prompt(row_S[None], index=index + i, **options) for i, row_S in enumerate(tokens_BS)]
        tokens_BT = torch.cat([one.tokens_BT for one in injected])
        mask_BT = torch.cat([one.meta_mask_BT for one in injected])
        document_ids_BT = torch.zeros_like(tokens_BT)
        position_ids_BT = rule.where.position_ids(document_ids_BT, mask_BT)
    return Batch(tokens_BT, next_token_targets(tokens_BT, mask_BT), mask_BT, document_ids_BT, position_ids_BT)


def long_documents(texts: Iterable[str], tokenizer: MetaTokenizer, length: int, most: int) -> Tensor:
    """Return the first `length` tokens of up to `most` documents that have as many, int64 [documents, length].

    Each begins behind `<|endoftext|>`, as in training, which is its first token.
    """
    found: list[Sequence[int]] = []
    for text in texts:
        # A token has a byte at least, and a character four at most.
        if len(text) * 4 < length - 1:
            continue
        ids = [tokenizer.eos_id, *tokenizer.encode(text)]
        if len(ids) >= length:
            found.append(ids[:length])
        if len(found) == most:
            break
    return torch.tensor(found, dtype=torch.int64).reshape(len(found), length)


def _check(model: MetaTransformer, positions: int) -> None:
    limit = model.positions.max_positions
    if limit is not None and positions > limit:
        raise UserError(f"model.max_positions={limit}: {positions} positions are read at once, with meta-tokens")
    if model.positions.needs_task_ids:
        raise UserError(f"model.position={model.config.position!r}: its ids come from a task, not from text")


def _edges(trained: int, length: int) -> list[int]:
    """Return 0, trained / 2, trained, 2 trained, ... as far as they lie below `length`, and that."""
    edges, edge = [trained // 2], trained
    while edge < length:
        edges.append(edge)
        edge *= 2
    return [0, *(edge for edge in edges if 0 < edge < length), length]


def _stretch(nll_DN: Tensor, bytes_DN: Tensor, low: int, high: int) -> Stretch:
    """The mean over tokens `low` to `high` - 1, the first of a document left out."""
    places = slice(max(low, 1), high)
    nats, n_bytes = nll_DN[:, places], bytes_DN[:, places].sum()
    return Stretch(low, high, float(nats.mean()), float(nats.sum()) / math.log(2) / max(1, int(n_bytes)))
