"""Which text a run is scored on, in a few numbers: what two runs must share before their losses are compared.

    arm        window of the block              scored, in order
    plain      the cat sat down                 cat sat down
    pause      the M cat sat M down             cat sat down
    within     the M cat sat                    cat sat                 another fingerprint: less text

Meta-tokens are left out, so that every arm of the same windows has the same fingerprint, wherever they stand and
however many there are. What is scored twice (`data.retarget`) counts twice.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from lightning_metatok.data.batch import NOT_SCORED, Batch
from lightning_metatok.data.blocks import Blocks
from lightning_metatok.data.examples import META, Examples

Ids = NDArray[np.integer]


@dataclass(frozen=True)
class ScoredText:
    """`fingerprint`: hex digits; `targets`: how many tokens are scored; `bytes_per_target`: of UTF-8, on average."""

    fingerprint: str
    targets: int
    bytes_per_target: float


def scored_text(windows: Iterable[tuple[Ids, Ids]], bytes_V: Tensor) -> ScoredText:
    """Return what stands for the text of `windows`: (source tokens, scored tokens in order) of each.

    Args:
        bytes_V: UTF-8 bytes of each token id.
    """
    digest, targets, n_bytes, sizes = xxhash.xxh3_128(), 0, 0, bytes_V.numpy()
    for source, scored in windows:
        for ids in (source, scored):
            digest.update(np.array([len(ids)], dtype="<i8").tobytes() + np.asarray(ids).astype("<i8").tobytes())
        targets += len(scored)
        n_bytes += int(sizes[scored].sum())
    return ScoredText(digest.hexdigest(), targets, n_bytes / max(1, targets))


def windows_of_batches(batches: Iterable[Batch]) -> Iterable[tuple[Ids, Ids]]:
    """Yield (source tokens, scored tokens) of every row."""
    for batch in batches:
        rows = zip(batch.tokens_BT.numpy(), batch.meta_mask_BT.numpy(), batch.targets_BT.numpy(), strict=True)
        for tokens_T, meta_T, targets_T in rows:
            yield tokens_T[~meta_T], targets_T[targets_T != NOT_SCORED]


def windows_of_examples(examples: Examples) -> Iterable[tuple[Ids, Ids]]:
    """Yield (prompt and answer without marks, answer) of every example."""
    for i in range(len(examples)):
        example = examples[i]
        yield example.tokens[(example.flags & META) == 0], example.answer


def pairs_of_blocks(
    blocks: Blocks, *, separate_documents: bool
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield of each block the tokens before those that are scored, and these; `separate_documents`: in one document."""
    for index in range(len(blocks)):
        here = np.array([index])
        source_S, scored_S = blocks.tokens(here)[0].numpy(), np.ones(blocks.length - 1, dtype=np.bool_)
        if separate_documents:
            scored_S &= np.diff(blocks.document_ids(here)[0].numpy()) == 0
        yield source_S[:-1][scored_S], source_S[1:][scored_S]
