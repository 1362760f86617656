"""The recorded forward passes of a subject, one batch after the other, and what its states are kept with."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_metatok.analysis.statistics import Difference, paired_bootstrap
from lightning_metatok.data import Batch
from lightning_metatok.model.recording import Recording, recorded
from lightning_metatok.probes.base import Subject


def inside(subject: Subject, what: str, *, attention: bool = False) -> Iterator[tuple[Batch, Recording]]:
    """Each batch with the recording of its forward pass, which is over when the next one is asked for."""
    with recorded(subject.model, attention=attention) as recording:
        for done, batch in enumerate(subject.batches):
            subject.progress(what, done, len(subject.batches))
            with torch.no_grad():
                subject.forward(batch, return_hidden=True)
            yield batch, recording


def real_BT(batch: Batch) -> Tensor:
    """Tokens that are no filling."""
    return batch.document_ids_BT >= 0


def preceding(batch: Batch, furthest: int) -> Tensor:
    """Place of the source token that stands `d` source tokens before each place, for d = 1 to `furthest`; -1: none.

    int64 [furthest, B, T]. Meta-tokens are not counted, and no document is left.
    """
    source_BT = ~batch.meta_mask_BT & real_BT(batch)
    T = source_BT.shape[1]
    before_BT = source_BT.cumsum(dim=1) - source_BT.long()
    order_BT = torch.where(source_BT, torch.arange(T, device=source_BT.device), T).sort(dim=1).values
    found = []
    for d in range(1, furthest + 1):
        rank_BT = before_BT - d
        place_BT = order_BT.gather(1, rank_BT.clamp(min=0))
        same_BT = batch.document_ids_BT.gather(1, place_BT.clamp(max=T - 1)) == batch.document_ids_BT
        found.append(torch.where((rank_BT >= 0) & same_BT, place_BT, -1))
    return torch.stack(found)


def mean_interval(values_n: NDArray[np.float64] | Sequence[float]) -> Difference:
    """Mean of one number a prompt, with its bootstrap interval."""
    values_n = np.asarray(values_n, dtype=np.float64)
    return paired_bootstrap(values_n, np.zeros_like(values_n), n_resamples=1999)


def by_prompt(values_R: NDArray[np.floating | np.bool_], prompt_R: NDArray[np.int64]) -> NDArray[np.float64]:
    """Means of the values of each prompt that has any, in the order of the prompts' numbers."""
    counts = np.bincount(prompt_R)
    sums = np.bincount(prompt_R, weights=values_R)
    means: NDArray[np.float64] = sums[counts > 0] / counts[counts > 0]
    return means
