"""Batches of text to ids, in the order of the text: in this process on all its threads, or in several processes.

    reads and writes     this process               b0 b1 b2 b3 ...        ids of b0 b1 b2 b3 ...
    tokenises            process 1                  b0 b2        ...       done in any order,
                         process 2                  b1 b3        ...       taken in that of the text

Only a few batches a process are on their way at a time, so that memory does not grow with the text. A process ends with
the one that made it, however that ends.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lightning_metatok import signals
from lightning_metatok.data.pieces import Piece, batches
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import WorkerError

BATCH = 1 << 21
"""Characters tokenised at once on the threads of this process."""
SMALL_BATCH = 1 << 18
"""Characters that a process of its own tokenises at once."""
AHEAD = 3
"""Batches a process that are on their way: one is tokenised, one waits, one is done."""


@dataclass(frozen=True)
class Encoded:
    """A batch as ids, those of the ends of documents included.

    Attributes:
        ids: as they are written.
        ends: where documents end, in ids from the start of the batch. digests: a hash of each of them.
        n_pieces, n_tokens, n_bytes, n_characters: how much it is; bytes are those of the text in UTF-8.
    """

    ids: bytes
    ends: list[int]
    digests: list[int]
    n_pieces: int
    n_tokens: int
    n_bytes: int
    n_characters: int


Encode = Callable[[Iterable[Piece]], Iterator[Encoded]]


def encode(tokenizer: MetaTokenizer, dtype: np.dtype[Any], batch: Sequence[Piece]) -> Encoded:
    """Return `batch` as ids of `dtype`. Raises as `MetaTokenizer.encode_documents`."""
    ids: list[int] = []
    ends, digests = [], []
    for found, (_, digest) in zip(tokenizer.encode_documents([text for text, _ in batch]), batch, strict=True):
        ids += found
        if digest is not None:
            ids.append(tokenizer.eos_id)
            ends.append(len(ids))
            digests.append(digest)
    return Encoded(
        np.array(ids, dtype=dtype).tobytes(),
        ends,
        digests,
        n_pieces=len(batch),
        n_tokens=len(ids),
        n_bytes=sum(len(text.encode()) for text, _ in batch),
        n_characters=sum(len(text) for text, _ in batch),
    )


@contextlib.contextmanager
def encoding(tokenizer: MetaTokenizer, dtype: np.dtype[Any], workers: int, ahead: int = 0) -> Iterator[Encode]:
    """Give a function from pieces to their ids, a batch at a time; with one worker all happens in this process.

    Args:
        ahead: characters that are on their way, so that they are tokenised while the caller does something else; one
            worker is a process of its own then.

    Raises:
        WorkerError: a process died.
    """
    if workers == 1 and not ahead:
        yield lambda pieces: map(partial(encode, tokenizer, dtype), batches(pieces, BATCH))
        return
    # As for workers that build batches: forked on Linux, where Python leaves that to others from 3.14 on.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    given = (tokenizer.to_json(), tokenizer.source, dtype, os.getpid())
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=given)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _DEAF)  # a worker inherits what is blocked
    try:
        pool.submit(os.getpid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield partial(_in_order, pool, max(AHEAD * workers, ahead // SMALL_BATCH))
    except BrokenProcessPool as error:
        raise WorkerError(
            "a process that tokenises was killed; the kernel kills so where memory is short: fewer --workers need "
            "less; what is on the disk is kept, and the same command goes on from there"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, ahead: int, pieces: Iterable[Piece]) -> Iterator[Encoded]:
    waiting: deque[Future[Encoded]] = deque()
    for batch in batches(pieces, SMALL_BATCH):
        waiting.append(pool.submit(_encode, batch))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


_DEAF = {signal.SIGINT, signal.SIGHUP, signal.SIGUSR1}
"""What the process that reads the text answers; SIGTERM is how a pool ends its processes."""
_own: dict[str, Any] = {}
"""Of a process that tokenises."""


def _begin(tokenizer: str, source: str, dtype: np.dtype[Any], parent: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core a process, and no threads that a fork has lost
    signals.end_with(parent)
    _own["encode"] = partial(encode, MetaTokenizer.from_json(tokenizer, source), dtype)


def _encode(batch: Sequence[Piece]) -> Encoded:
    encoded: Encoded = _own["encode"](batch)
    return encoded
