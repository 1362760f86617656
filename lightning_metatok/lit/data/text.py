"""MetaTokenDataModule: a corpus, its tokenizer, and batches with meta-tokens, for Lightning.

A batch is a pure function of (seed, step, rank): there is no stream whose state could be lost, and any number of
workers gives the same batches.
"""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from lightning_metatok.data import (
    Batch,
    BatchBuilder,
    ContiguousBatches,
    DataConfig,
    InjectionRule,
    MetaTokenizer,
    PackedBlocks,
    StepDataset,
    StepSampler,
    TokenStore,
    prepare,
)
from lightning_metatok.data.blocks import Blocks
from lightning_metatok.data.corpora import Split
from lightning_metatok.data.injection import Length
from lightning_metatok.data.masking import FRACTION, Masking, n_hidden
from lightning_metatok.data.scored import ScoredText, pairs_of_blocks, scored_text, windows_of_batches
from lightning_metatok.data.streamed import StreamedBatches, StreamedBlocks
from lightning_metatok.data.streaming import check_streamed, prepare_streamed
from lightning_metatok.lit.data.protocol import TextData
from lightning_metatok.lit.data.saying import MASKED, NO_TEST, say_of_data, text_in_a_line
from lightning_metatok.lit.data.stretches import same_stretches, spread_blocks
from lightning_metatok.lit.data.text_options import check_text_options
from lightning_metatok.lit.data.workers import make_loader
from lightning_metatok.lit.micro_steps import next_micro_step
from lightning_metatok.tasks.stream import Counts


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
        meta_kinds: int = 1,
        retarget: bool = False,
        mask_fraction: float | None = None,
        separate_documents: bool = False,
        seed: int = 1337,
        num_workers: int = 0,
        validation_blocks: int | None = 256,
        contiguous: bool = False,
        shuffle_buffer: int | None = None,
        held_out_documents: int | None = None,
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
            meta_kinds: Kinds of meta-tokens, each with an embedding of its own: the i-th of a block has kind i mod n.
            retarget: Score a source token before a meta-token on the next SOURCE token, instead of not at all.
            mask_fraction: Share of source tokens that are hidden with data.objective=masked, above 0 and below 1; 0.15
                when not given.
            separate_documents: Documents packed into one block do not see each other, and positions restart.
            seed: Seed of the order of blocks and of the places of meta-tokens.
            num_workers: Processes that build batches; any number gives the same batches.
            validation_blocks: Blocks to validate on, spread evenly over the validation text; null for all.
            contiguous: Train on blocks in the order of the text, not shuffled: a row of a batch goes on where it ended
                in the one before, as memory from block to block needs it (model.recurrence_options.carry).
            shuffle_buffer: Train on text while it is read, tokenised on the fly by num_workers processes and not kept;
                so many blocks at a time are drawn in random order. Needs a tokenizer. null: all is tokenised ahead.
            held_out_documents: With shuffle_buffer, how many documents validate and test (null: 2000): the first ones
                of the text to validate on, or else of each corpus, which trains from behind them on.
            corpus: The fields of DataConfig.
        """
        super().__init__()
        self.config = DataConfig(**corpus)
        self.rule = InjectionRule(meta_fraction, meta_placement, meta_length, meta_placement_options)
        check_text_options(
            self.config, self.rule, block_size, batch_size, num_workers, mask_fraction, retarget, meta_kinds
        )
        check_streamed(self.config, shuffle_buffer, held_out_documents, contiguous=contiguous)
        self.block_size, self.batch_size = block_size, batch_size
        self.mask_fraction = FRACTION if mask_fraction is None else mask_fraction
        self.meta_kinds, self.retarget, self.separate_documents = meta_kinds, retarget, separate_documents
        self.seed, self.num_workers, self.validation_blocks = seed, num_workers, validation_blocks
        self.shuffle_buffer, self.held_out_documents, self.contiguous = shuffle_buffer, held_out_documents, contiguous
        self.tokenizer: MetaTokenizer
        self.store: TokenStore
        self._streamed: StreamedBlocks | None = None
        self._ready = False

    @property
    def block_length(self) -> int:
        """T: positions that the model sees in a block."""
        return self.rule.total_length(self.block_size)

    @property
    def _source_length(self) -> int:
        return self.rule.source_length(self.block_size)

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
        return float(self.block_length - self._source_length)

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
        blocks = self._rows
        scored = round(blocks * self.scored_per_prompt) if self.config.masked else 0
        return Counts(blocks * self.block_length, blocks * self._source_length, scored)

    def too_long(self, limit: int) -> str:
        """What to say of blocks longer than a table of `limit` positions."""
        return (
            f"data.block_size={self.block_size}: blocks of {self.block_length} tokens are longer than the table of "
            f"positions, model.max_positions={limit}; expected at most that, or model.position=rotary"
        )

    def begins_anew(self, micro_step: int) -> bool:
        """Return whether the rows of this step do not go on where those of the one before ended."""
        return not self.contiguous or micro_step % self._stretch == 0

    @cached_property
    def _stretch(self) -> int:
        builder = self._builder(self._training_blocks())
        assert isinstance(builder, ContiguousBatches), "rows go on"
        return builder.stretch

    def summary(self) -> str:
        """The data in one line."""
        return text_in_a_line(self.config.name, self.tokenizer, self.store, streamed=self._streamed is not None)

    # -- preparation

    def prepare_data(self) -> None:
        """Train the tokenizer and write the token streams, unless the cache holds them; one process at a time."""
        if self._ready:
            return
        if self.shuffle_buffer is None:
            self.tokenizer, self.store = prepare(self.config, say_of_data)
        else:
            self.tokenizer, self.store, text = prepare_streamed(
                self.config, self.held_out_documents, say_of_data, self.num_workers
            )
            self._streamed = StreamedBlocks(text, self._source_length, self.shuffle_buffer, self.seed)
        self.tokenizer = self.tokenizer.with_kinds(self.meta_kinds)
        self._ready = True
        if self.config.masked:
            say_of_data(MASKED)

    def setup(self, stage: str) -> None:
        """Open what was prepared, and build a batch: what cannot work comes to light before a run folder is made.

        Raises:
            UserError: the text is shorter than a block, or the placement cannot work in such blocks.
        """
        self.prepare_data()
        if self._streamed is None or stage == "fit":
            self._training_blocks().tokens(np.array([0]))
        if stage == "test" and self._split("test") != "test":
            say_of_data(NO_TEST)
        self._builder(self._evaluation("test" if stage == "test" else "validation"), shuffle=False).batch(0)

    def teardown(self, stage: str) -> None:
        """End the processes that read text to train on."""
        if self._streamed is not None:
            self._streamed.close()

    # -- loaders

    def train_dataloader(self) -> DataLoader:
        """Batches without end, from the step that the trainer stands at."""
        trainer = self.trainer
        assert trainer is not None
        dataset = StepDataset(self._builder(self._training_blocks()), trainer.global_rank, trainer.world_size)
        workers = self.num_workers if self._streamed is None else 0  # they tokenise
        return self._loader(dataset, StepSampler(partial(next_micro_step, trainer), None), workers)

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
        sampler = StepSampler(0, builder.n_steps(world_size))
        return self._loader(StepDataset(builder, rank, world_size), sampler, self.num_workers)

    def scored_pairs(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Of every validation block the source tokens that models are scored on, and the one before each.

        For baselines on the same text.
        """
        return pairs_of_blocks(self._evaluation("validation"), separate_documents=self.separate_documents)

    def scored_text(self) -> ScoredText:
        """What the validation loss is measured on, with all blocks on one rank."""
        builder = self._builder(self._evaluation("validation"), shuffle=False)
        batches = (builder.batch(step) for step in range(builder.n_steps()))
        return scored_text(windows_of_batches(batches), self.tokenizer.bytes_V)

    def trained_text(self, windows: int) -> ScoredText:
        """The first `windows` blocks of source text that are trained on, on all ranks together."""
        blocks = self._training_blocks()
        order = self._builder(blocks).shuffled(np.arange(windows))
        return scored_text(((ids, ids[:0]) for ids in blocks.tokens(order).numpy()), self.tokenizer.bytes_V)

    def training_tokens(self, most: int) -> NDArray[np.unsignedinteger]:
        """Return the first tokens that are trained on, in the order of the text; no more than shuffle_buffer holds."""
        return self.store.stream("train")[:most] if self._streamed is None else self._streamed.first_tokens(most)

    def context_batches(self, multiple: int, *, windows: int, largest: int) -> list[Batch]:
        """Batches of blocks `multiple` times as long as in training: of test text in `test`, else of validation text.

        For every `multiple` up to `largest` they cover the same `windows` stretches of text (up to rounding: a stretch
        of `largest` training blocks), so that losses at different lengths can be compared.

        Returns:
            Batches of about as many tokens as in training; none if the text is shorter than one window.
        """
        split = self._split("test" if self.trainer and self.trainer.state.fn == "test" else "validation")
        blocks = same_stretches(
            self.store, split, self.rule.source_length(multiple * self.block_size),
            window=largest * self._source_length, windows=windows, parts=largest // multiple,
        )  # fmt: skip
        if blocks is None:
            return []
        builder = self._builder(blocks, shuffle=False, multiple=multiple)
        return [builder.batch(step) for step in range(builder.n_steps())]

    @property
    def can_test(self) -> bool:
        """Whether there is text to test on: a block of it on each rank."""
        if "test" not in self.store.splits:
            return False
        ranks = self.trainer.world_size if self.trainer else 1
        return self.store.n_tokens("test") >= ranks * self._source_length

    @property
    def _rows(self) -> int:
        return self.batch_size * (self.trainer.world_size if self.trainer else 1)

    def _split(self, wanted: Split) -> Split:
        return wanted if wanted in self.store.splits else "validation"

    def _evaluation(self, wanted: Split) -> PackedBlocks:
        """`validation_blocks` windows of source text, spread evenly."""
        return spread_blocks(self.store, self._split(wanted), self._source_length, self.validation_blocks)

    def _training_blocks(self) -> Blocks:
        if self._streamed is not None:
            return self._streamed
        return PackedBlocks(self.store, "train", self._source_length)

    def _builder(self, blocks: Blocks, *, shuffle: bool = True, multiple: int = 1) -> BatchBuilder:
        kind: Callable[..., BatchBuilder] = StreamedBatches if isinstance(blocks, StreamedBlocks) else BatchBuilder
        if self.contiguous and shuffle:
            kind = partial(ContiguousBatches, rows=self._rows)
        return kind(
            blocks,
            self.rule,
            block_length=multiple * self.block_size,
            meta_id=self.tokenizer.meta_ids,
            after_ids=self.tokenizer.punctuation_ids,
            seed=self.seed,
            batch_size=max(1, self.batch_size // multiple),
            shuffle=shuffle,
            separate_documents=self.separate_documents,
            retarget=self.retarget,
            masking=Masking.of(self.tokenizer, self.mask_fraction, self.seed) if self.config.masked else None,
        )

    def _loader(self, dataset: StepDataset, sampler: StepSampler, workers: int) -> DataLoader:
        return make_loader(
            dataset,
            workers,
            sampler=sampler,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
        )


if TYPE_CHECKING:
    IS_TEXT: type[TextData] = MetaTokenDataModule
