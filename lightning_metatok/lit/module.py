"""MetaTokenLM: the LightningModule around the meta-token transformer.

Loss over SOURCE targets only (`targets_BT` is -100 elsewhere). Everything the model needs stands in the Batch, so a
step is: hidden states, cross-entropy where something is scored (`targets`), log. Where data score answers only, a few
positions of a prompt, accuracy is logged beside the loss.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lightning_metatok import old_keys
from lightning_metatok.data import Batch, MetaTokenizer
from lightning_metatok.data.counter import random_bits
from lightning_metatok.errors import UserError
from lightning_metatok.lit import optimizers, targets
from lightning_metatok.lit.answers.accuracy import AnswerAccuracy
from lightning_metatok.lit.budget import Budget
from lightning_metatok.lit.carried_memory import CarriedMemory
from lightning_metatok.lit.checkpoints import marks
from lightning_metatok.lit.checkpoints.contents import TOKENIZER_KEY, weights_of
from lightning_metatok.lit.checkpoints.init_from import check_parts, load_weights
from lightning_metatok.lit.checkpoints.io import read_state
from lightning_metatok.lit.checkpoints.matching import check_matches, check_tokenizer, separator_ids
from lightning_metatok.lit.data.fits import check_fits
from lightning_metatok.lit.data.protocol import Data, data_of
from lightning_metatok.lit.distillation import DIGEST, Teacher
from lightning_metatok.lit.metrics import SourceTokenLoss
from lightning_metatok.lit.micro_steps import micro_step
from lightning_metatok.lit.optim import OptimizerConfig, build_optimizer
from lightning_metatok.lit.sharded import ShardedStrategy, whole
from lightning_metatok.lit.spending import follow_budget
from lightning_metatok.lit.step_mean import StepMean
from lightning_metatok.model import TransformerConfig, build
from lightning_metatok.model.recurrent import RecurrentTransformer

DROPOUT = 0x64726F706F7574
"""Keeps dropout masks apart from the places of meta-tokens, which draw from the same seed."""


class MetaTokenLM(LightningModule):
    """Language model with learned meta-tokens."""

    bytes_V: Tensor
    dropout_from: int | None = None
    """Seed of dropout and of random positions; None: that of the data."""
    measured: dict[str, Any]
    """What the training step at hand says of itself, by the names that it is logged under."""
    loss_of_micro_batch: Tensor
    """The mean over what the micro-batch at hand scores."""

    def __init__(
        self,
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008  (frozen, and the CLI reads the default)
        init_from: str | None = None,
        init_new: list[str] | None = None,
        distill_from: str | None = None,
        distill_weight: float = 5.0,
        compile: bool = False,
        **transformer: Any,
    ) -> None:
        """Build the model.

        Args:
            optimizer: Which one, and its schedule.
            init_from: Checkpoint whose weights the model starts from (a new run, unlike `--ckpt_path`).
            init_new: Parts that start fresh instead: tokens (the embedding, for other token ids; <|meta|> keeps its
                row), positions (rows that a longer learned table adds), layers (what a mechanism adds and the
                checkpoint lacks), pattern (what tokens may see).
            distill_from: Checkpoint of a frozen teacher that reads the text without meta-tokens (`lit.distillation`).
            distill_weight: Of the divergence from it, beside the loss.
            compile: Compile the transformer with torch.compile.
            transformer: The fields of TransformerConfig.
        """
        super().__init__()
        transformer = old_keys.translated(transformer)
        config = TransformerConfig(**transformer)
        # Lightning's load_from_checkpoint hands back the plain dict that was saved.
        self.optimizer_config = OptimizerConfig(**optimizer) if isinstance(optimizer, dict) else optimizer
        # Plain types only: a checkpoint must load with weights_only=True.
        self.save_hyperparameters({**asdict(config), "optimizer": asdict(self.optimizer_config), "compile": compile})
        self.config = config
        self.model = build(config)
        self.tokenizer: MetaTokenizer | None = None
        self._meta_rows: dict[str, Tensor] = {}
        self.measured = {}
        check_parts(init_new or [], init_from=init_from)
        if init_from is not None:
            self._load_weights(Path(init_from), init_new or [])
        self.teacher = None if distill_from is None else Teacher(Path(distill_from), config, weight=distill_weight)
        if compile:
            config.check_can("compile")
            self.model.compile()
        self.register_buffer("bytes_V", torch.zeros(config.vocab_size, dtype=torch.int64), persistent=False)
        self.separate_documents = self.scores_answers_only = self.masked = False
        self.step_mean = StepMean()
        self.val_metric = SourceTokenLoss()
        self.test_metric = SourceTokenLoss()
        self.val_accuracy = AnswerAccuracy()
        self.test_accuracy = AnswerAccuracy()

    # -- set-up and checkpoints

    def setup(self, stage: str) -> None:
        """Take the tokenizer from the data, and from the trainer's budget how long the schedule is."""
        data = data_of(self.trainer)
        self.check_data(data)
        budget = getattr(self.trainer, "budget", Budget())
        if self.teacher is not None:
            self.teacher.join(self.trainer)
        if stage == "fit" and budget.given:
            micro_batches = self.trainer.accumulate_grad_batches * self.trainer.world_size
            steps, line = follow_budget(budget, self, data, micro_batches)
            self.trainer.fit_loop.epoch_loop.max_steps = steps
            if self.trainer.is_global_zero:
                print(line)
        self.model.know_separators(separator_ids(self.config, data.tokenizer))
        self.tokenizer, self.separate_documents = data.tokenizer, data.separate_documents
        self.scores_answers_only, self.masked = data.scores_answers_only, data.config.masked
        with torch.no_grad():
            for name, rows_KD in self._meta_rows.items():
                ids = data.tokenizer.meta_ids[: len(rows_KD)]
                self.model.get_parameter(name)[list(ids)] = rows_KD[: len(ids)]
        self._meta_rows = {}  # once: what follows is training
        self.bytes_V[: data.tokenizer.vocab_size] = data.tokenizer.bytes_V.to(self.bytes_V.device)

    def check_data(self, data: Data) -> None:
        """Refuse data that the model cannot read.

        Raises:
            UserError: another tokenizer than that of the weights or of the teacher, or as `check_fits`.
        """
        if self.tokenizer is not None:
            check_tokenizer(self.tokenizer, data.tokenizer)
        if self.teacher is not None:
            self.teacher.check(data.tokenizer)
        check_fits(self.model, data)

    def configure_callbacks(self) -> list[Callback]:
        """Those that training would be wrong without, under any Trainer."""
        return [CarriedMemory()] if isinstance(self.model, RecurrentTransformer) and self.model.rule.carries else []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint carries its tokenizer and where marks stood, so that one file is enough to generate from."""
        if self.tokenizer is not None:
            checkpoint[TOKENIZER_KEY] = self.tokenizer.to_json()
        if (found := marks.Marks.of(getattr(self._trainer, "datamodule", None))) is not None:
            checkpoint[marks.KEY] = found.as_dict()
        if self.teacher is not None:
            checkpoint[DIGEST] = self.teacher.sha256

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another shape or another tokenizer, naming what differs.

        Raises:
            UserError: the checkpoint does not fit this model or this data.
        """
        self.tokenizer = check_matches(checkpoint, self.model, self.tokenizer)
        if self.teacher is not None:
            self.teacher.check_same(checkpoint.get(DIGEST))

    def _load_weights(self, path: Path, new: Sequence[str]) -> None:
        checkpoint = read_state(path, key="model.init_from")
        self.tokenizer = check_matches(checkpoint, self.model, self.tokenizer, new)
        carried = checkpoint.get(TOKENIZER_KEY)
        meta_ids = MetaTokenizer.from_json(carried).meta_ids if carried and "tokens" in new else ()
        source, weights = str(path), weights_of(checkpoint)
        self._meta_rows = load_weights(self.model, weights, new, source=source, meta_ids=meta_ids)

    # -- the loss

    def nll(self, batch: Batch, *, drop_positions: str | None = None) -> Tensor:
        """Negative log-likelihood of every target, in nats, 0 where nothing is scored: `nll_BT`."""
        rows = self.rows(batch, drop_positions=drop_positions)
        return rows.laid_out(targets.each(self.model, rows))

    def answers(self, batch: Batch, *, drop_positions: str | None = None) -> tuple[Tensor, Tensor]:
        """Score answers alone: `nll_BT` without a gradient, and bool `right_BT`: the likeliest token is the right one.

        A prompt is one document: the filling stands behind it, where no token of the prompt sees it.
        """
        rows = self.rows(batch, drop_positions=drop_positions)
        found = targets.summed(self.model, rows, likeliest=True)
        return rows.laid_out(found.nll_K), rows.laid_out(rows.right_K(found.likeliest_K))

    def rows(self, batch: Batch, *, drop_positions: str | None = None) -> targets.Rows:
        """Read a batch: the hidden states that are scored."""
        return targets.Rows.of(self.model, batch, separate_documents=self._separates, drop_positions=drop_positions)

    @property
    def _separates(self) -> bool:
        return self.separate_documents and not self.scores_answers_only

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Dropout and random positions follow from (seed, micro-step, rank), as batches do: a resume draws the same. So
        does what changes from step to step by itself."""
        optimizers.train(self.trainer.optimizers)
        if self.model.follows_steps:
            self.model.at_step(self.global_step)
        if (seed := self.dropout_seed(batch_idx)) is not None:
            torch.manual_seed(seed)

    def dropout_seed(self, batch_idx: int) -> int | None:
        """What the generator is seeded with before this micro-batch; None where nothing is drawn."""
        if self.config.dropout == 0 and not self.model.positions.draws_in_training:
            return None
        own = self.dropout_from
        seed = data_of(self.trainer).seed if own is None else own
        return int(random_bits(seed ^ DROPOUT, micro_step(self.trainer, batch_idx), self.trainer.global_rank)[0])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss over the source targets of this micro-batch, weighted by what it scores of its step's."""
        rows = self.rows(batch)
        found, id_nll, scored = targets.summed(self.model, rows), rows.id_nll, len(rows)
        sum_of_losses, loss = found.sum, found.sum / scored
        self.measured = {"loss/train": loss.detach()}
        if id_nll is not None:
            self.measured["loss/position_ids/train"] = id_nll.detach()
            sum_of_losses = sum_of_losses + id_nll * scored
        elif not (self.scores_answers_only or self.masked) and self._is_written(self.global_step + 1):
            metric = SourceTokenLoss().to(self.device)
            metric.update(rows.laid_out(found.nll_K), batch.targets_BT, self.bytes_V)
            self.measured["bits_per_byte/train"] = metric.compute()["bits_per_byte"]
        whole_loss = loss if id_nll is None else loss + id_nll
        if self.teacher is not None:
            head_VD = self.model.head_weight
            apart = self.teacher.divergence(batch, rows, head_VD, separate_documents=self._separates)
            self.measured["loss/distill/train"] = apart.detach() / scored
            sum_of_losses = sum_of_losses + self.teacher.weight * apart
            whole_loss = whole_loss + self.teacher.weight * apart / scored
        self.loss_of_micro_batch = whole_loss.detach()
        if not StepMean.is_needed(self.trainer):
            return whole_loss
        counts = data_of(self.trainer).counts(micro_step(self.trainer, batch_idx))
        shared = (counts.scored or counts.tokens) / self.trainer.world_size
        return self.step_mean.weighted(sum_of_losses, scored, shared)

    def on_after_backward(self) -> None:
        """Once the last micro-batch of a step is in, its gradient is that of the mean over all that it scores."""
        if StepMean.is_needed(self.trainer) and not self.trainer.fit_loop._should_accumulate():
            self.step_mean.bring_to_mean(self.trainer, self.model)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log what the step measured if it is written: telling Lightning costs more than a small model's layer."""
        if self.trainer.fit_loop._should_accumulate():
            return
        if self._is_written(self.global_step) or self.trainer.should_stop:
            self.log_dict(self.measured)
            self._log_step(self.global_step)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation loss."""
        self._add(batch, self.val_metric, self.val_accuracy)

    def on_validation_epoch_end(self) -> None:
        """Log the validation loss over all its source targets."""
        self._log_and_reset(self.val_metric, self.val_accuracy, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the test loss."""
        self._add(batch, self.test_metric, self.test_accuracy)

    def on_test_epoch_end(self) -> None:
        """Log the test loss over all its source targets."""
        self._log_and_reset(self.test_metric, self.test_accuracy, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss of every source target: `nll_BT` (nats), `tokens_BT`, `targets_BT`, `meta_mask_BT`."""
        return {
            "nll_BT": self.nll(batch),
            "tokens_BT": batch.tokens_BT,
            "targets_BT": batch.targets_BT,
            "meta_mask_BT": batch.meta_mask_BT,
        }

    def _add(self, batch: Batch, metric: SourceTokenLoss, accuracy: AnswerAccuracy) -> None:
        if self.scores_answers_only:
            nll_BT, right_BT = self.answers(batch)
            accuracy.update(right_BT, batch.targets_BT)
        else:
            nll_BT = self.nll(batch)
        metric.update(nll_BT, batch.targets_BT, self.bytes_V)

    def _log_and_reset(self, metric: SourceTokenLoss, accuracy: AnswerAccuracy, name: str) -> None:
        values = metric.compute()
        # float32 throughout: not every device has float64, and callbacks compare what was logged.
        # The metric holds the sums of all ranks; sync_dist only tells Lightning that ranks agree.
        self.log(f"loss/{name}", values["nats"].float(), sync_dist=True)
        if self.scores_answers_only:
            for kind, value in accuracy.compute().items():
                self.log(f"accuracy/{kind}/{name}", value.float(), sync_dist=True)
            accuracy.reset()
        elif not self.masked:
            self.log(f"bits_per_byte/{name}", values["bits_per_byte"].float(), sync_dist=True)
        self._log_step(self.global_step)
        metric.reset()

    def _log_step(self, step: int) -> None:
        """Where these values stand on the axis: optimiser steps done. Lightning's own count is one less."""
        self.log("step", torch.tensor(step, dtype=torch.float64), sync_dist=self.trainer.evaluating)

    def _is_written(self, step: int) -> bool:
        return step % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]

    # -- the step

    def configure_model(self) -> None:
        """Leave each rank its piece of the model, with a strategy that shards."""
        # Without a trainer weights are loaded whole: load_from_checkpoint calls this, too.
        if self._trainer is not None and isinstance(self._trainer.strategy, ShardedStrategy):
            self._trainer.strategy.shard(self.model)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimiser and its schedule, stepped once an optimiser step."""
        optimizer, schedule = build_optimizer(self.model, self.optimizer_config)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the global norm, and log that norm: clipping computes it anyway."""
        if gradient_clip_algorithm not in (None, "norm"):
            raise UserError(f"trainer.gradient_clip_algorithm={gradient_clip_algorithm}: expected norm")
        limit = float("inf") if gradient_clip_val is None else float(gradient_clip_val)
        norm = whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if (look := getattr(callback, "on_gradient_norm", None)) is not None:
                look(self.trainer, self, optimizer, norm)
        self.measured["optimizer/grad_norm"] = norm
        self.measured["optimizer/learning_rate"] = optimizer.param_groups[0]["lr"]
