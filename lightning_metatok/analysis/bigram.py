"""The bigram model of a token stream: the loss to beat for a model that learned more than pairs of tokens.

    P(w | h) = (c(h, w) + d(h) P(w)) / (c(h) + d(h)),    P(w) = (c(w) + 1) / (N + V)

c counts, d(h) is the number of distinct tokens seen after h. An unseen h leaves the unigram P(w), so each row
is a proper distribution. Source: Witten & Bell 1991, method C, interpolated as in Chen & Goodman 1999,
section 2.3; the unigram is smoothed by adding one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 21
"""Pairs counted or scored at once; bounds memory."""

Ids = NDArray[np.integer]


@dataclass(frozen=True)
class Bigram:
    """Counts of a fitted bigram model; V is the vocabulary size, P the number of distinct pairs.

    Attributes:
        pairs_P: int64 keys h * V + w of the pairs seen, ascending.
        counts_P: int64 c(h, w).
        followed_V: int64 c(h), how often h was followed by any token.
        distinct_V: int64 d(h).
        unigram_V: float64 P(w).
    """

    pairs_P: NDArray[np.int64]
    counts_P: NDArray[np.int64]
    followed_V: NDArray[np.int64]
    distinct_V: NDArray[np.int64]
    unigram_V: NDArray[np.float64]

    def nll(self, previous_ids: Ids, next_ids: Ids) -> NDArray[np.float64]:
        """Return -ln P(next | previous) in nats, elementwise over two 1-D arrays of ids below V."""
        assert previous_ids.shape == next_ids.shape, "one next token for each previous token"
        starts = range(0, len(next_ids), CHUNK)
        parts = [self._nll(previous_ids[i : i + CHUNK], next_ids[i : i + CHUNK]) for i in starts]
        return np.concatenate([np.empty(0), *parts])

    def _nll(self, previous_ids: Ids, next_ids: Ids) -> NDArray[np.float64]:
        V = len(self.unigram_V)
        # Each distinct pair once, in ascending order: random keys one by one would miss the CPU's caches.
        keys, pair_of_token = np.unique(pair_keys(previous_ids, next_ids, V), return_inverse=True)
        h, w = np.divmod(keys, V)
        places = np.searchsorted(self.pairs_P, keys)
        places[places == len(self.pairs_P)] = 0
        counts = np.where(self.pairs_P[places] == keys, self.counts_P[places], 0)
        backoff = np.where(self.followed_V[h] > 0, self.distinct_V[h], 1)  # an unseen h leaves the unigram alone
        p = (counts + backoff * self.unigram_V[w]) / (self.followed_V[h] + backoff)
        return -np.log(p)[pair_of_token]


def fit_bigram(tokens: Ids, vocab_size: int, after_chunk: Callable[[], None] = lambda: None) -> Bigram:
    """Return the bigram model of the 1-D stream `tokens` (at least two ids below `vocab_size`).

    `after_chunk` is called after every few million pairs, and may raise to end it.
    """
    assert len(tokens) >= 2, "a bigram needs two tokens"
    parts = []
    unigrams_V = np.ones(vocab_size, dtype=np.int64)
    for start in range(0, len(tokens), CHUNK):
        chunk = tokens[start : start + CHUNK + 1]  # one more than the step: the pair across the border
        parts.append(np.unique(pair_keys(chunk[:-1], chunk[1:], vocab_size), return_counts=True))
        unigrams_V += np.bincount(tokens[start : start + CHUNK], minlength=vocab_size)
        after_chunk()
    keys = np.concatenate([keys for keys, _ in parts])
    pairs_P, group = np.unique(keys, return_inverse=True)
    counts_P = np.zeros(len(pairs_P), dtype=np.int64)
    np.add.at(counts_P, group, np.concatenate([counts for _, counts in parts]))
    followed_V = np.zeros(vocab_size, dtype=np.int64)
    np.add.at(followed_V, pairs_P // vocab_size, counts_P)
    return Bigram(
        pairs_P=pairs_P,
        counts_P=counts_P,
        followed_V=followed_V,
        distinct_V=np.bincount(pairs_P // vocab_size, minlength=vocab_size),
        unigram_V=unigrams_V / unigrams_V.sum(),
    )


def pair_keys(previous_ids: Ids, next_ids: Ids, vocab_size: int) -> NDArray[np.int64]:
    """Return one integer for each pair, h * V + w."""
    return previous_ids.astype(np.int64) * vocab_size + next_ids
