"""The batch of a step as a pure function of (step, rank): no state to save or to lose.

    sample  g = step * (batch_size * world_size) + b * world_size + rank       row b of the batch of `rank`
    epoch   g // n_blocks                                                      one pass over all blocks
    block   permutation(seed, epoch)[g % n_blocks]                             validation: block g, in order
    hidden  masking(block, seed, index=g), where tokens are hidden             new places in each epoch
    metas   inject(block, rule, seed, index=g)                                 new slots in each epoch

Blocks are windows of source text. Where meta-tokens lengthen them (`InjectionRule.length` grow), all arms have the same
windows in the same rows of the same steps. `ContiguousBatches` leaves the text in its order instead.
Two ranks with batch 4 therefore see, together, what one rank with batch 8 sees, and a DataLoader yields the
same batches with any number of workers and from any step on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lightning_metatok.data.batch import Batch, next_token_targets
from lightning_metatok.data.blocks import Blocks
from lightning_metatok.data.counter import permutation
from lightning_metatok.data.injection import InjectionRule
from lightning_metatok.data.kinds import MetaIds
from lightning_metatok.data.masking import Masking
from lightning_metatok.errors import UserError

PERMUTATION = 0x6F72646572
"""Keeps the order of blocks apart from the slots of meta-tokens, which draw from the same seed."""


@dataclass
class BatchBuilder:
    """Makes the batch of any step out of `blocks`.

    Attributes:
        blocks: blocks of `rule.source_length(block_length)` source tokens.
        rule: where meta-tokens go.
        block_length: nominal block length; the batch has T = `rule.total_length(block_length)` positions.
        meta_id: id of `<|meta|>`, or of all kinds of meta-tokens.
        after_ids: ids that the placement `punctuation` puts meta-tokens behind.
        seed: chooses the order of blocks and the slots of meta-tokens.
        batch_size: rows a rank.
        shuffle: True: endless epochs, each in its own random order (training). False: each block once, in
            order, with the same meta slots every time (validation).
        separate_documents: give the documents in a block different ids and restart positions in each;
            otherwise a block is one document.
        retarget: score the token before a meta-token on the next source token, see `next_token_targets`.
        masking: which tokens are hidden, and scored at their own places; None: each is scored where the one before it
            stands.
    """

    blocks: Blocks
    rule: InjectionRule
    block_length: int
    meta_id: MetaIds
    seed: int
    batch_size: int
    after_ids: Sequence[int] = ()
    shuffle: bool = True
    separate_documents: bool = False
    retarget: bool = False
    masking: Masking | None = None
    _order: tuple[int, NDArray[np.int64]] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        expected = self.rule.source_length(self.block_length)
        assert self.blocks.length == expected, f"blocks of {self.blocks.length} tokens, the rule needs {expected}"

    def n_steps(self, world_size: int = 1) -> int:
        """Return the steps of one pass over the blocks.

        Training leaves out a last batch that is not full (its blocks open the next epoch). Validation ends
        with a smaller batch, and leaves out blocks, less than `world_size` of them, only if they do not reach
        every rank.

        Raises:
            UserError: there are too few blocks for one step.
        """
        full, rest = divmod(len(self.blocks), self.batch_size * world_size)
        n = full if self.shuffle else full + (rest >= world_size)
        if n == 0:
            needed = world_size * (self.batch_size if self.shuffle else 1)
            raise UserError(
                f"data.corpus: its {self.blocks.split} split has {len(self.blocks)} blocks of "
                f"{self.blocks.length} tokens, one step needs {needed}; give more text, or a smaller "
                f"data.block_size or data.batch_size"
            )
        return n

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return the batch of `rank` at `step`, on the CPU."""
        assert step >= 0, "steps count from 0"
        assert 0 <= rank < world_size, f"rank {rank} of {world_size}"
        samples_B = step * self.batch_size * world_size + np.arange(self.batch_size) * world_size + rank
        if self.shuffle:
            blocks_B = self.shuffled(samples_B)
        else:
            samples_B = blocks_B = samples_B[samples_B < len(self.blocks)]
        source_BS = self.blocks.tokens(blocks_B)
        masked = None if self.masking is None else self.masking.apply(source_BS, samples_B)
        injected = self.rule.apply(
            source_BS if masked is None else masked.tokens_BS,
            block_length=self.block_length,
            meta_id=self.meta_id,
            seed=self.seed,
            index=samples_B,
            after_ids=self.after_ids,
        )
        tokens_BT, meta_mask_BT = injected.tokens_BT, injected.meta_mask_BT
        if self.separate_documents:
            document_ids_BT = documents_of_slots(self.blocks.document_ids(blocks_B), meta_mask_BT)
        else:
            document_ids_BT = torch.zeros_like(tokens_BT)
        if masked is None:
            targets_BT = next_token_targets(tokens_BT, meta_mask_BT, self.retarget, document_ids_BT)
        else:
            targets_BT = masked.targets_beside(meta_mask_BT)
        return Batch(
            tokens_BT=tokens_BT,
            targets_BT=targets_BT,
            meta_mask_BT=meta_mask_BT,
            document_ids_BT=document_ids_BT,
            position_ids_BT=self.rule.where.position_ids(document_ids_BT, meta_mask_BT),
        )

    def shuffled(self, samples_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the blocks of global samples, which may lie in different epochs, in training."""
        epochs_B, places_B = np.divmod(samples_B, len(self.blocks))
        blocks_B = np.empty_like(samples_B)
        for epoch in np.unique(epochs_B).tolist():
            if self._order is None or self._order[0] != epoch:
                self._order = epoch, permutation(len(self.blocks), self.seed ^ PERMUTATION, epoch)
            here_B = epochs_B == epoch
            blocks_B[here_B] = self._order[1][places_B[here_B]]
        return blocks_B


@dataclass
class ContiguousBatches(BatchBuilder):
    """Batches in the order of the text: each row goes on where the same row of the step before ended.

        blocks  0 1 2 3 4 5 6        step      0   1   2 | 3 ...
                                     row 0     0   1   2 | 0        a row of all ranks together has its own stretch
                                     row 1     3   4   5 | 3        of `stretch` blocks, and begins it again at its end

    What is left over, fewer blocks than there are rows, is not trained on. Source: Transformer-XL (arXiv 1901.02860)
    and RMT (arXiv 2207.06881).

    Attributes:
        rows: rows of a step, on all ranks together.
    """

    rows: int = 1

    @property
    def stretch(self) -> int:
        """Steps until all rows begin anew.

        Raises:
            UserError: there are fewer blocks than rows.
        """
        return self.n_steps(self.rows // self.batch_size)

    def shuffled(self, samples_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the blocks, those of each row in their order."""
        steps_B, rows_B = np.divmod(samples_B, self.rows)
        return rows_B * self.stretch + steps_B % self.stretch


def documents_of_slots(document_ids_BS: Tensor, meta_mask_BT: Tensor) -> Tensor:
    """Return int64 [B, T]; a meta-token belongs to the document of the source token before it, if any."""
    source_BT = (~meta_mask_BT).cumsum(dim=1).sub(1).clamp(min=0)
    return document_ids_BS.gather(1, source_BT)


class StepDataset(Dataset[Batch]):
    """`dataset[step]` is the batch of `rank` at `step`.

    Read it with `DataLoader(dataset, sampler=StepSampler(start), batch_size=None, num_workers=...)`.
    """

    def __init__(self, builder: BatchBuilder, rank: int = 0, world_size: int = 1) -> None:
        self.builder, self.rank, self.world_size = builder, rank, world_size

    def __getitem__(self, step: int) -> Batch:
        return self.builder.batch(step, self.rank, self.world_size)


class StepSampler(Sampler[int]):
    """The steps start, start + 1, ... up to `stop`, which is left out, or without end.

    `start` may be a function: where an epoch begins then, is asked when it does.
    """

    def __init__(self, start: int | Callable[[], int] = 0, stop: int | None = None) -> None:
        self.start, self.stop = start, stop

    @property
    def first(self) -> int:
        """Where it begins now."""
        return self.start() if callable(self.start) else self.start

    def __iter__(self) -> Iterator[int]:
        step = self.first
        while self.stop is None or step < self.stop:
            yield step
            step += 1

    def __len__(self) -> int:
        if self.stop is None:
            raise TypeError("an endless sampler has no length")
        return max(0, self.stop - self.first)
