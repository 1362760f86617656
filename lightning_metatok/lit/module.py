"""MetaTokenLM: the LightningModule around the meta-token transformer.

Loss over SOURCE targets only (`targets_BT` is -100 elsewhere). Everything the model needs stands in the Batch, so a
step is: logits, cross-entropy, log.
"""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from lightning_metatok.data import Batch, MetaTokenizer
from lightning_metatok.data.counter import random_bits
from lightning_metatok.errors import UserError
from lightning_metatok.lit.datamodule import MetaTokenDataModule
from lightning_metatok.lit.metrics import SourceTokenLoss
from lightning_metatok.lit.optim import OptimizerConfig, build_optimizer
from lightning_metatok.model import MetaTransformer, TransformerConfig

TOKENIZER_KEY = "tokenizer"
DROPOUT = 0x64726F706F7574
"""Keeps dropout masks apart from the places of meta-tokens, which draw from the same seed."""
FREE_AFTER_TRAINING = {"max_positions", "dropout", "drop_positions", "rotary_base", "meta_fill", "attention_backend"}
"""Choices that weights do not depend on, so that a checkpoint may be read with others (but a table has its size)."""


class MetaTokenLM(LightningModule):
    """Language model with learned meta-tokens."""

    bytes_V: Tensor

    def __init__(
        self,
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008  (frozen, and the CLI reads the default)
        init_from: str | None = None,
        compile: bool = False,
        **transformer: Any,
    ) -> None:
        """Build the model.

        Args:
            optimizer: AdamW and its schedule.
            init_from: Checkpoint whose weights the model starts from (a new run, unlike `--ckpt_path`).
            compile: Compile the transformer with torch.compile.
            transformer: The fields of TransformerConfig.
        """
        super().__init__()
        config = TransformerConfig(**transformer)
        # Lightning's load_from_checkpoint hands back the plain dict that was saved.
        self.optimizer_config = OptimizerConfig(**optimizer) if isinstance(optimizer, dict) else optimizer
        # Plain types only: a checkpoint must load with weights_only=True.
        self.save_hyperparameters({**asdict(config), "optimizer": asdict(self.optimizer_config), "compile": compile})
        self.config = config
        self.model = MetaTransformer(config)
        self.tokenizer: MetaTokenizer | None = None
        if init_from is not None:
            self._load_weights(Path(init_from))
        if compile:
            self.model.compile()
        self.register_buffer("bytes_V", torch.zeros(config.vocab_size, dtype=torch.int64), persistent=False)
        self.separate_documents = False
        self.val_metric = SourceTokenLoss()
        self.test_metric = SourceTokenLoss()

    # -- set-up and checkpoints

    def setup(self, stage: str) -> None:
        """Take the tokenizer from the data."""
        data: MetaTokenDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        self.check_data(data)
        self.tokenizer, self.separate_documents = data.tokenizer, data.separate_documents
        self.bytes_V[: data.tokenizer.vocab_size] = data.tokenizer.bytes_V.to(self.bytes_V.device)

    def check_data(self, data: MetaTokenDataModule) -> None:
        """Refuse data that the model cannot read.

        Raises:
            UserError: more token ids than `model.vocab_size`, another tokenizer than the weights were trained with, or
                blocks longer than the table of positions.
        """
        n_ids, limit = data.tokenizer.vocab_size, self.model.positions.max_positions
        if n_ids > self.config.vocab_size:
            raise UserError(
                f"model.vocab_size={self.config.vocab_size}: expected at least {n_ids}, the ids of the tokenizer"
            )
        if self.tokenizer is not None:
            check_tokenizer(self.tokenizer, data.tokenizer)
        if limit is not None and data.block_length > limit:
            raise UserError(
                f"data.block_size={data.block_size}: blocks of {data.block_length} tokens are longer than the table of "
                f"positions, model.max_positions={limit}; expected at most that, or model.position=rotary"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """A checkpoint carries its tokenizer, so that one file is enough to generate from."""
        if self.tokenizer is not None:
            checkpoint[TOKENIZER_KEY] = self.tokenizer.to_json()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of another shape or another tokenizer, naming what differs.

        Raises:
            UserError: the checkpoint does not fit this model or this data.
        """
        saved, mine = checkpoint.get("hyper_parameters", {}), asdict(self.config)
        free = FREE_AFTER_TRAINING - ({"max_positions"} if self.model.positions.max_positions is not None else set())
        for key in (key for key in mine if key not in free):
            if key in saved and saved[key] != mine[key]:
                raise UserError(
                    f"model.{key}={mine[key]}: the checkpoint was trained with {saved[key]}; expected the same value"
                )
        if TOKENIZER_KEY in checkpoint:
            theirs = MetaTokenizer.from_json(checkpoint[TOKENIZER_KEY])
            if self.tokenizer is None:
                self.tokenizer = theirs
            else:
                check_tokenizer(theirs, self.tokenizer)

    def _load_weights(self, path: Path) -> None:
        checkpoint = read_checkpoint(path, key="model.init_from")
        self.on_load_checkpoint(checkpoint)
        weights = {k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items() if k.startswith("model.")}
        missing, unexpected = self.model.load_state_dict(weights, strict=False)
        if missing or unexpected:
            raise UserError(
                f"model.init_from={path}: weights differ; missing {sorted(missing)[:3]}, "
                f"not expected {sorted(unexpected)[:3]}"
            )

    # -- the loss

    def nll(self, batch: Batch, *, drop_positions: str | None = None) -> Tensor:
        """Negative log-likelihood of every target, in nats, 0 where nothing is scored: `nll_BT`."""
        logits_BTV = self.model(
            batch.tokens_BT,
            batch.meta_mask_BT,
            batch.position_ids_BT,
            batch.document_ids_BT if self.separate_documents else None,  # None: one document, the fast mask
            drop_positions=drop_positions,
        )
        return F.cross_entropy(
            logits_BTV.flatten(0, 1).float(), batch.targets_BT.flatten(), ignore_index=-100, reduction="none"
        ).view_as(batch.targets_BT)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Dropout follows from (seed, micro-step, rank), as batches do: a resumed run draws the same masks."""
        if self.config.dropout > 0:
            trainer, every = self.trainer, self.trainer.accumulate_grad_batches
            micro_step = trainer.global_step * every + batch_idx % every
            seed = trainer.datamodule.seed ^ DROPOUT  # type: ignore[attr-defined]
            torch.manual_seed(int(random_bits(seed, micro_step, trainer.global_rank)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss over the source targets of this micro-batch."""
        nll_BT = self.nll(batch)
        loss = nll_BT.sum() / (batch.targets_BT >= 0).sum()
        self.log("loss/train", loss, prog_bar=True)
        self._log_step(self.global_step + 1)
        if self._logs_now():
            metric = SourceTokenLoss().to(self.device)
            metric.update(nll_BT, batch.targets_BT, self.bytes_V)
            self.log("bits_per_byte/train", metric.compute()["bits_per_byte"])
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation loss."""
        self.val_metric.update(self.nll(batch), batch.targets_BT, self.bytes_V)

    def on_validation_epoch_end(self) -> None:
        """Log the validation loss over all its source targets."""
        self._log_and_reset(self.val_metric, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the test loss."""
        self.test_metric.update(self.nll(batch), batch.targets_BT, self.bytes_V)

    def on_test_epoch_end(self) -> None:
        """Log the test loss over all its source targets."""
        self._log_and_reset(self.test_metric, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Loss of every source target: `nll_BT` (nats), `tokens_BT`, `targets_BT`, `meta_mask_BT`."""
        return {
            "nll_BT": self.nll(batch),
            "tokens_BT": batch.tokens_BT,
            "targets_BT": batch.targets_BT,
            "meta_mask_BT": batch.meta_mask_BT,
        }

    def _log_and_reset(self, metric: SourceTokenLoss, name: str) -> None:
        values = metric.compute()
        # float32 throughout: not every device has float64, and callbacks compare what was logged.
        # The metric holds the sums of all ranks; sync_dist only tells Lightning that ranks agree.
        self.log(f"loss/{name}", values["nats"].float(), sync_dist=True)
        self.log(f"bits_per_byte/{name}", values["bits_per_byte"].float(), sync_dist=True)
        self._log_step(self.global_step)
        metric.reset()

    def _log_step(self, step: int) -> None:
        """Where these values stand on the axis: optimiser steps done. Lightning's own count is one less."""
        self.log("step", torch.tensor(step, dtype=torch.float64), sync_dist=self.trainer.evaluating)

    def _logs_now(self) -> bool:
        return (self.global_step + 1) % self.trainer.log_every_n_steps == 0  # type: ignore[attr-defined]

    # -- the step

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW and its schedule, stepped once an optimiser step."""
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
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.log("optimizer/grad_norm", norm)
        self.log("optimizer/learning_rate", optimizer.param_groups[0]["lr"])


def check_tokenizer(checkpoint: MetaTokenizer, data: MetaTokenizer) -> None:
    """Raise UserError unless both read text as the same ids."""
    if checkpoint.fingerprint() != data.fingerprint():
        raise UserError(
            f"data.tokenizer: the checkpoint's tokenizer ({checkpoint.vocab_size} ids) is not that of the data "
            f"({data.vocab_size} ids): expected data.tokenizer=<its run folder>/tokenizer.json"
        )


def read_checkpoint(path: Path, *, key: str) -> dict[str, Any]:
    """Load a checkpoint on the CPU with weights_only=True: nothing in it can run.

    Raises:
        UserError: there is no such file, or it is no checkpoint of this project; `key` is what the user typed.
    """
    if not path.is_file():
        raise UserError(f"{key}={path}: no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for a file that is no checkpoint
        raise UserError(f"{key}={path}: cannot be read as a checkpoint ({type(error).__name__})") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{key}={path}: expected a checkpoint with a state_dict, as `fit` writes them")
    return checkpoint


def load_model(path: Path) -> tuple[MetaTransformer, MetaTokenizer]:
    """The transformer of a checkpoint, ready to evaluate, and the tokenizer that it carries.

    Raises:
        UserError: no such file, or not a checkpoint of this project.
    """
    checkpoint = read_checkpoint(path, key="--ckpt_path")
    if TOKENIZER_KEY not in checkpoint or "hyper_parameters" not in checkpoint:
        raise UserError(f"--ckpt_path={path}: expected a checkpoint that carries its tokenizer, as `fit` writes them")
    names = {field.name for field in fields(TransformerConfig)}
    model = MetaTransformer(
        TransformerConfig(**{k: v for k, v in checkpoint["hyper_parameters"].items() if k in names})
    )
    weights = {k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items() if k.startswith("model.")}
    model.load_state_dict(weights)
    return model.eval(), MetaTokenizer.from_json(checkpoint[TOKENIZER_KEY])
