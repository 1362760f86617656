"""Blocks in the order of the text: a row goes on where it ended in the step before, on however many ranks."""

import numpy as np
import pytest
import torch

from lightning_metatok.data import InjectionRule, PackedBlocks, TokenStore
from lightning_metatok.data.corpora import Corpus
from lightning_metatok.data.stream import ContiguousBatches
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.data.writing import prepare_tokens
from lightning_metatok.errors import UserError

S = 20


@pytest.fixture(scope="module")
def store(corpus: Corpus, tokenizer: MetaTokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return prepare_tokens(corpus, tokenizer, tmp_path_factory.mktemp("cache"))


def builder(store: TokenStore, batch_size: int, rows: int, fraction: float = 0.0) -> ContiguousBatches:
    return ContiguousBatches(
        PackedBlocks(store, "train", S), InjectionRule(fraction), S, 1, seed=5, batch_size=batch_size, rows=rows
    )


def test_each_row_reads_its_stretch_of_the_text_again_and_again(store: TokenStore) -> None:
    build, text, n = builder(store, 3, 3), store.stream("train"), len(PackedBlocks(store, "train", S))
    assert build.stretch == n // 3 > 2
    read = [build.batch(step).tokens_BT.numpy() for step in range(2 * build.stretch)]
    for row in range(3):
        start = row * build.stretch * S
        expected = text[start : start + build.stretch * S]
        np.testing.assert_array_equal(np.concatenate([tokens_BT[row] for tokens_BT in read]), np.tile(expected, 2))


def test_two_ranks_read_what_one_does(store: TokenStore) -> None:
    whole, part = builder(store, 4, 4, 0.2), builder(store, 2, 4, 0.2)
    assert whole.stretch == part.stretch
    for step in (0, 1, whole.stretch, whole.stretch + 3):
        ranks = [part.batch(step, rank, 2).tokens_BT for rank in range(2)]
        assert torch.equal(torch.stack(ranks, dim=1).flatten(0, 1), whole.batch(step).tokens_BT)


def test_fewer_blocks_than_rows_are_refused(store: TokenStore) -> None:
    n = len(PackedBlocks(store, "train", S))
    with pytest.raises(UserError, match=rf"has {n} blocks of {S} tokens, one step needs {n + 1}"):
        builder(store, n + 1, n + 1).batch(0)
