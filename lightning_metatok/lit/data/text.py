"""MetaTokenDataModule: a corpus, its tokenizer, and batches with meta-tokens, for Lightning.

A batch is a pure function of (seed, step, rank): there is no stream whose state could be lost, and any number of
workers gives the same batches.
"""

import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from lightning_metatok.data import (
    Batch,
    BatchBuilder,
    DataConfig,
    InjectionRule,
    Masking,
    MetaTokenizer,
    PackedBlocks,
    StepDataset,
    StepSampler,
    TokenStore,
    prepare,
)
from lightning_metatok.data.corpora import Split
from lightning_metatok.data.injection import Length
from lightning_metatok.data.masking import n_hidden
from lightning_metatok.data.scored import ScoredText, scored_text, windows_of_batches
from lightning_metatok.errors import UserError
from lightning_metatok.lit.data.protocol import TextData
from lightning_metatok.lit.data.workers import make_loader
from lightning_metatok.lit.micro_steps import next_micro_step
from lightning_metatok.tasks.stream import Counts

MASK_FRACTION = 0.15
"""That of BERT (arXiv 1810.04805)."""


class MetaTokenDataModule(LightningDataModule):
    """Text becomes blocks, blocks get meta-tokens."""

    scores_answers_only = coupled = False
    usual_placement = "random"
    shown: Any = None
    """What is written down as the name of the corpus, where that is not the name itself: ${oc.env:KEY}."""

    def __init__(
        self,
        block_size: int = 256,
        batch_size: int = 16,
        meta_fraction: float = 0.1,
        meta_placement: str = "random",
        meta_placement_options: dict[str, Any] = {},  # noqa: B006  (never changed; the CLI reads the default)
        meta_length: Length = "grow",
        retarget: bool = False,
        mask_fraction: float | None = None,
        separate_documents: bool = False,
        seed: int = 1337,
        num_workers: int = 0,
        validation_blocks: int | None = 256,
        **corpus: Any,
    ) -> None:
        """Describe the data; nothing is read yet.

        Args:
            block_size: Source tokens in a block, S; with meta_length=within meta-tokens are among them.
            batch_size: Blocks in a micro-batch on one device.
            meta_fraction: Meta-tokens in a block, as a share of block_size, 0 to 0.5; M = floor(fraction * block_size).
            meta_placement: Where meta-tokens go: random, periodic, punctuation (behind it), chunk_end, prefix,
                suffix, fixed, or a dotted path.
            meta_placement_options: Options of the placement, such as the slots of fixed; its file lists them.
            meta_length: grow lengthens the block by M, so that every arm reads and is scored on the same text; within
                keeps the block at block_size and crops the source, so that arms are not comparable.
            retarget: Score a source token before a meta-token on the next SOURCE token, instead of not at all.
            mask_fraction: Share of source tokens that are hidden with data.objective=masked, above 0 and below 1; 0.15
                when not given.
            separate_documents: Documents packed into one block do not see each other, and positions restart.
            seed: Seed of the order of blocks and of the places of meta-tokens.
            num_workers: Processes that build batches; any number gives the same batches.
            validation_blocks: Blocks to validate on, spread evenly over the validation text; null for all.
            corpus: The fields of DataConfig.
        """
        super().__init__()
        self.config = DataConfig(**corpus)
        self.rule = InjectionRule(
            fraction=meta_fraction,
            placement=meta_placement,
            length=meta_length,
            options=meta_placement_options,
        )
        for name, value in (("block_size", block_size), ("batch_size", batch_size)):
            if value < 1:
                raise UserError(f"data.{name}={value}: expected a positive number")
        if mask_fraction is not None and not (self.config.masked and 0 < mask_fraction < 1):
            expected = "a share above 0 and below 1" if self.config.masked else "data.objective=masked with it"
            raise UserError(f"data.mask_fraction={mask_fraction}: expected {expected}")
        if retarget and self.config.masked:
            raise UserError(
                "data.retarget=True: expected false with data.objective='masked', which scores tokens where they stand"
            )
        if num_workers < 0:
            raise UserError(f"data.num_workers={num_workers}: expected 0 or more")
        if self.rule.source_length(block_size) < 2:
            raise UserError(f"data.block_size={block_size}: too small to hold two source tokens beside its meta-tokens")
        self.block_size, self.batch_size = block_size, batch_size
        self.mask_fraction = MASK_FRACTION if mask_fraction is None else mask_fraction
        self.retarget, self.separate_documents = retarget, separate_documents
        self.seed, self.num_workers, self.validation_blocks = seed, num_workers, validation_blocks
        self.tokenizer: MetaTokenizer
        self.store: TokenStore
        self._ready = False

    @property
    def block_length(self) -> int:
        """T: positions that the model sees in a block."""
        return self.rule.total_length(self.block_size)

    @property
    def title(self) -> str:
        """The corpus, as it is written down."""
        return str(self.shown or self.config.name)

    @property
    def placement(self) -> str:
        """Where meta-tokens stand."""
        return self.rule.placement

    @property
    def n_positions(self) -> int:
        """Positions that a block needs."""
        return self.block_length

    @property
    def marks_per_prompt(self) -> float:
        """M: meta-tokens in a block."""
        return float(self.block_length - self.rule.source_length(self.block_size))

    @property
    def meta_share(self) -> float:
        """Share of meta-tokens among the tokens of a block."""
        return self.marks_per_prompt / self.block_length

    @property
    def mean_length(self) -> float:
        """Tokens of a block; all have the same number."""
        return float(self.block_length)

    @property
    def scored_per_prompt(self) -> float:
        """Positions of a block that logits are computed at: all of them, or those of hidden tokens."""
        source = self.rule.source_length(self.block_size)
        return float(n_hidden(self.mask_fraction, source)) if self.config.masked else self.mean_length

    def counts(self, micro_step: int) -> Counts:
        """Return what the batches of a step hold on all ranks together: the same for each step."""
        blocks = self.batch_size * (self.trainer.world_size if self.trainer else 1)
        scored = round(blocks * self.scored_per_prompt) if self.config.masked else 0
        return Counts(blocks * self.block_length, blocks * self.rule.source_length(self.block_size), scored)

    def too_long(self, limit: int) -> str:
        """What to say of blocks longer than a table of `limit` positions."""
        return (
            f"data.block_size={self.block_size}: blocks of {self.block_length} tokens are longer than the table of "
            f"positions, model.max_positions={limit}; expected at most that, or model.position=rotary"
        )

    def summary(self) -> str:
        """The data in one line."""
        added = f" ({' and '.join(self.tokenizer.added)} added)" if self.tokenizer.added else ""
        counts = {split: self.store.n_tokens(split) for split in self.store.splits}
        shares = [f"{n:,} {split} ({n / sum(counts.values()):.1%})" for split, n in counts.items()]
        return f"{self.config.name}, {', '.join(shares)} tokens, {self.tokenizer.vocab_size:,} ids{added}"

    # -- preparation

    def prepare_data(self) -> None:
        """Train the tokenizer and write the token streams, unless the cache holds them; one process at a time."""
        if not self._ready:
            self.tokenizer, self.store = prepare(self.config, say_of_data)
            self._ready = True
            if self.config.masked:
                say_of_data(
                    "data.objective=masked: hidden tokens are told from both sides, so there are no bits per byte, no "
                    "bigram model to beat and no sample of text"
                )

    def setup(self, stage: str) -> None:
        """Open what was prepared, and build a batch: what cannot work comes to light before a run folder is made.

        Raises:
            UserError: the text is shorter than a block, or the placement cannot work in such blocks.
        """
        self.prepare_data()
        PackedBlocks(self.store, "train", self.rule.source_length(self.block_size))
        if stage == "test" and self._split("test") != "test":
            say_of_data(
                "warning: there is no text to test on (data.test_fraction, data.test_corpus): it is validated on"
            )
        self._builder(self._evaluation("test" if stage == "test" else "validation"), shuffle=False).batch(0)

    # -- loaders

    def train_dataloader(self) -> DataLoader:
        """Batches without end, from the step that the trainer stands at."""
        trainer = self.trainer
        assert trainer is not None
        builder = self._builder(PackedBlocks(self.store, "train", self.rule.source_length(self.block_size)))
        first = partial(next_micro_step, trainer)
        return self._loader(StepDataset(builder, trainer.global_rank, trainer.world_size), StepSampler(first, None))

    def val_dataloader(self) -> DataLoader:
        """`validation_blocks` blocks, spread evenly over the validation text, always with the same meta-tokens."""
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader:
        """As many blocks of the test text; of the validation text, where there is none to test on."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader:
        """The same blocks as validation."""
        return self.val_dataloader()

    def _evaluation_loader(self, split: Split) -> DataLoader:
        builder = self._builder(self._evaluation(split), shuffle=False)
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return self._loader(StepDataset(builder, rank, world_size), StepSampler(0, builder.n_steps(world_size)))

    def scored_pairs(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Of every validation block the source tokens that models are scored on, and the one before each.

        For baselines on the same text.
        """
        blocks = self._evaluation("validation")
        for index in range(len(blocks)):
            here = np.array([index])
            source_S, scored_S = blocks.tokens(here)[0].numpy(), np.ones(blocks.length - 1, dtype=np.bool_)
            if self.separate_documents:
                scored_S &= np.diff(blocks.document_ids(here)[0].numpy()) == 0
            yield source_S[:-1][scored_S], source_S[1:][scored_S]

    def scored_text(self) -> ScoredText:
        """What the validation loss is measured on, with all blocks on one rank."""
        builder = self._builder(self._evaluation("validation"), shuffle=False)
        batches = (builder.batch(step) for step in range(builder.n_steps()))
        return scored_text(windows_of_batches(batches), self.tokenizer.bytes_V)

    def trained_text(self, windows: int) -> ScoredText:
        """The first `windows` blocks of source text that are trained on, on all ranks together."""
        blocks = PackedBlocks(self.store, "train", self.rule.source_length(self.block_size))
        order = self._builder(blocks).shuffled(np.arange(windows))
        return scored_text(((ids, ids[:0]) for ids in blocks.tokens(order).numpy()), self.tokenizer.bytes_V)

    def context_batches(self, multiple: int, *, windows: int, largest: int) -> list[Batch]:
        """Batches of blocks `multiple` times as long as in training: of test text in `test`, else of validation text.

        For every `multiple` up to `largest` they cover the same `windows` stretches of text (up to rounding: a stretch
        of `largest` training blocks), so that losses at different lengths can be compared.

        Returns:
            Batches of about as many tokens as in training; none if the text is shorter than one window.
        """
        split = self._split("test" if self.trainer and self.trainer.state.fn == "test" else "validation")
        n_tokens = self.store.n_tokens(split)
        window = largest * self.rule.source_length(self.block_size)
        windows = min(windows, n_tokens // window)
        if windows == 0:
            return []
        length = self.rule.source_length(multiple * self.block_size)
        parts = np.arange(largest // multiple) * length
        starts = (_spread(windows, n_tokens - window)[:, None] + parts).reshape(-1)
        blocks = PackedBlocks(self.store, split, length, starts)
        builder = self._builder(blocks, shuffle=False, multiple=multiple)
        return [builder.batch(step) for step in range(builder.n_steps())]

    @property
    def can_test(self) -> bool:
        """Whether there is text to test on: a block of it on each rank."""
        if "test" not in self.store.splits:
            return False
        ranks = self.trainer.world_size if self.trainer else 1
        return self.store.n_tokens("test") >= ranks * self.rule.source_length(self.block_size)

    def _split(self, wanted: Split) -> Split:
        return wanted if wanted in self.store.splits else "validation"

    def _evaluation(self, wanted: Split) -> PackedBlocks:
        """`validation_blocks` windows of source text, spread evenly."""
        split, length = self._split(wanted), self.rule.source_length(self.block_size)
        every = PackedBlocks(self.store, split, length)
        if self.validation_blocks is None or self.validation_blocks >= len(every):
            return every
        starts = _spread(self.validation_blocks, self.store.n_tokens(split) - length)
        return PackedBlocks(self.store, split, length, starts)

    def _builder(self, blocks: PackedBlocks, *, shuffle: bool = True, multiple: int = 1) -> BatchBuilder:
        return BatchBuilder(
            blocks,
            self.rule,
            block_length=multiple * self.block_size,
            meta_id=self.tokenizer.meta_id,
            after_ids=self.tokenizer.punctuation_ids,
            seed=self.seed,
            batch_size=max(1, self.batch_size // multiple),
            shuffle=shuffle,
            separate_documents=self.separate_documents,
            retarget=self.retarget,
            masking=self._masking,
        )

    @property
    def _masking(self) -> Masking | None:
        if self.tokenizer.mask_id is None or not self.config.masked:
            return None
        text_ids = self.tokenizer.bytes_V.nonzero().flatten().numpy()
        return Masking(self.mask_fraction, self.tokenizer.mask_id, text_ids, self.seed)

    def _loader(self, dataset: StepDataset, sampler: StepSampler) -> DataLoader:
        return make_loader(
            dataset,
            self.num_workers,
            sampler=sampler,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )


if TYPE_CHECKING:
    IS_TEXT: type[TextData] = MetaTokenDataModule


@rank_zero_only
def say_of_data(line: str) -> None:
    """Print what people should know about their data, once: warnings to stderr."""
    warning = line.startswith("warning: ")
    print(f"lightning-metatok: {line}" if warning else line, file=sys.stderr if warning else sys.stdout)


def _spread(count: int, end: int) -> NDArray[np.int64]:
    """`count` whole numbers, evenly spread from 0 to `end`."""
    return np.linspace(0, end, count).astype(np.int64)
