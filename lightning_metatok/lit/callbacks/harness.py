"""Tasks of lm-evaluation-harness while a model trains: its numbers beside the loss, in every logger."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metatok.errors import UserError
from lightning_metatok.lit.data.protocol import text_of
from lightning_metatok.lit.sharded import is_sharded


class HarnessEvaluation(Callback):
    """Evaluate the live model as `evaluate/TASK/METRIC`; the extra `eval` is needed.

    Args:
        tasks: Names of tasks of lm-eval; none: no evaluation.
        every: Optimiser steps between two evaluations, and one at the end.
        include_path: Folder with tasks of one's own, a YAML file each.
        limit: Documents of each task; null: all.
        n_shots: Examples before each question; null: what the task says.
        batch_size: Requests that are read at once.
    """

    def __init__(
        self,
        tasks: list[str] | None = None,
        every: int = 1000,
        include_path: str | None = None,
        limit: int | None = None,
        n_shots: int | None = None,
        batch_size: int = 16,
    ) -> None:
        self.tasks, self.every, self.include_path = tasks or [], every, include_path
        self.limit, self.n_shots, self.batch_size = limit, n_shots, batch_size
        self.manager: Any = None
        self.done_at = -1

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the tasks, before time is spent."""
        if not self.tasks:
            return
        pl_module.config.check_causal("evaluate.tasks: ")  # type: ignore[operator,union-attr]
        if is_sharded(trainer):
            raise UserError("evaluate.tasks: a model in pieces cannot be evaluated; expected another trainer.strategy")
        if self.every < 1:
            raise UserError(f"evaluate.every={self.every}: expected 1 or more")
        if trainer.is_global_zero:
            from lightning_metatok.lit.harness import find_tasks

            self.manager = find_tasks(self.tasks, self.include_path)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Evaluate where it is time."""
        if trainer.global_step % self.every == 0:
            self._evaluate(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate what came out."""
        self._evaluate(trainer, pl_module)

    @torch.no_grad()
    def _evaluate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.manager is None or self.done_at == trainer.global_step:
            return
        from lightning_metatok.lit.harness import evaluate
        from lightning_metatok.lit.live import LiveModel

        self.done_at, data = trainer.global_step, text_of(trainer)
        live = LiveModel(
            pl_module.model,  # type: ignore[arg-type]
            data.tokenizer,
            rule=data.rule,
            batch_size=self.batch_size,
        )
        found = evaluate(live, self.tasks, self.manager, limit=self.limit, n_shots=self.n_shots)
        values = {f"evaluate/{score.task}/{score.metric}": score.value for score in found}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
