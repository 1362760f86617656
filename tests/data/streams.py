"""Blocks that are tokenised as they are read beside those of a naive reading."""

from typing import Any

import numpy as np
import torch

from lightning_metatok.data import BatchBuilder, InjectionRule, MetaTokenizer
from lightning_metatok.data.batch import Batch
from lightning_metatok.data.counter import permutation
from lightning_metatok.data.stream import PERMUTATION
from lightning_metatok.data.streamed import StreamedBatches, StreamedBlocks

S, SEED = 16, 5


def builder(blocks: Any, tokenizer: MetaTokenizer, batch_size: int = 4) -> BatchBuilder:
    kind = StreamedBatches if isinstance(blocks, StreamedBlocks) else BatchBuilder
    rule = InjectionRule(fraction=0.25)
    return kind(
        blocks, rule, block_length=S, meta_id=tokenizer.meta_id, seed=SEED, batch_size=batch_size,
        separate_documents=True,
    )  # fmt: skip


def equal(first: Batch, second: Batch) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in vars(first) if name[0] != "_")


def naive(ids: list[list[int]], buffer: int, epochs: int) -> list[tuple[list[int], list[int]]]:
    """(tokens, documents) of every sample: everything is read, cut and shuffled, one thing after another."""
    stream = [(token, number) for number, document in enumerate(ids) for token in document]
    blocks = [stream[start : start + S] for start in range(0, len(stream) - S + 1, S)]
    samples = []
    for epoch in range(epochs):
        for window in range(-(-len(blocks) // buffer)):
            held = blocks[window * buffer : (window + 1) * buffer]
            for number in permutation(len(held), SEED ^ PERMUTATION, epoch + (window << 32)):
                tokens, documents = zip(*held[number], strict=True)
                samples.append((list(tokens), [document - documents[0] for document in documents]))
    return samples


def read(blocks: StreamedBlocks, samples: range) -> list[tuple[list[int], list[int]]]:
    found = []
    for start in range(samples.start, samples.stop, 5):  # batches that lie on borders, too
        here = np.arange(start, min(start + 5, samples.stop))
        found += list(zip(blocks.tokens(here).tolist(), blocks.document_ids(here).tolist(), strict=True))
    return found
