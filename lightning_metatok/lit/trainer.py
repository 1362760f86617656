"""Lightning's Trainer with one more precision: `auto`, what this machine computes fastest."""

import re
from typing import Any

import lightning
from lightning.fabric.plugins.environments import ClusterEnvironment

from lightning_metatok.errors import UserError
from lightning_metatok.lit import optimizers
from lightning_metatok.lit.budget import Budget, read_budget
from lightning_metatok.lit.checkpoints.io import RunCheckpointIO
from lightning_metatok.lit.loops import install
from lightning_metatok.lit.run.launch import check_launch
from lightning_metatok.lit.sharded import NAME, ShardedStrategy
from lightning_metatok.runtime import resolve_precision


class Trainer(lightning.Trainer):
    """`lightning.Trainer`, with ``precision="auto"`` as the default.

    Checkpoints are those of `RunCheckpointIO`, made at the step borders of `loops`.
    Lightning's own sharding of the data is off: a batch is a function of (seed, step, rank) already.
    """

    def __init__(
        self,
        precision: str = "auto",
        use_distributed_sampler: bool = False,
        budget: Budget = Budget(),  # noqa: B008  (frozen, and the CLI reads the default)
        **kwargs: Any,
    ) -> None:
        """Build the trainer.

        Args:
            precision: `auto` (bf16-mixed where the GPU or the CPU has bf16 instructions, else 32-true) or any
                precision that Lightning knows.
            kwargs: Lightning's, and `strategy="fsdp2"`: see `ShardedStrategy`.
            use_distributed_sampler: Leave it off; see above.
            budget: What the run may cost, in place of max_steps.

        Raises:
            UserError: an unknown precision, validations (and their checkpoints) between accumulated micro-batches, or
                a share of training batches, which have no end, or processes that nobody starts.
        """
        self.budget = read_budget(budget)
        for name in ("val_check_interval", "limit_train_batches"):
            if isinstance(kwargs.get(name), float) and kwargs[name] != 1.0:
                raise UserError(
                    f"trainer.{name}={kwargs[name]}: expected a whole number, as training batches have no end to take "
                    "a share of"
                )
        limit = kwargs.get("limit_train_batches")
        accumulate = kwargs.get("accumulate_grad_batches") or 1
        if isinstance(limit, int) and limit % accumulate:
            raise UserError(
                f"trainer.limit_train_batches={limit}: expected a multiple of "
                f"trainer.accumulate_grad_batches={accumulate}, so that no optimiser step is cut short"
            )
        if isinstance(limit, int) and isinstance(kwargs.get("val_check_interval"), int):
            # An epoch is so many batches then, and batches go on: validations are counted over all of them.
            kwargs["check_val_every_n_epoch"] = None
        if kwargs.get("overfit_batches"):
            raise UserError(
                f"trainer.overfit_batches={kwargs['overfit_batches']}: expected 0, as batches are a function of the "
                "step; to learn a few by heart, give data.corpus or data.train_examples little to learn"
            )
        interval = kwargs.get("val_check_interval")
        if isinstance(interval, int) and interval % accumulate:
            raise UserError(
                f"trainer.val_check_interval={interval}: expected a multiple of "
                f"trainer.accumulate_grad_batches={accumulate}, so that checkpoints stand between optimiser steps"
            )
        kwargs["use_distributed_sampler"] = use_distributed_sampler
        precision, strategy = resolve_precision(precision), kwargs.get("strategy")
        if strategy == NAME:
            # It gathers weights in bfloat16 itself, which autocast would do a second time.
            kwargs["strategy"], precision = ShardedStrategy(precision), "32-true"
        elif isinstance(strategy, str) and strategy.startswith("fsdp"):
            raise UserError(f"trainer.strategy={strategy!r}: expected {NAME}")
        elif isinstance(strategy, str) and re.search(r"spawn|fork|notebook", strategy):
            # They copy this process with what it holds, and bring back weights alone, not a run.
            raise UserError(f"trainer.strategy={strategy!r}: expected ddp, which starts its processes anew")
        plugins = kwargs.get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
            devices, nodes = kwargs.get("devices", "auto"), kwargs.get("num_nodes", 1)
            check_launch(devices, nodes, str(kwargs.get("accelerator", "auto")))
        self.checkpoint_io = RunCheckpointIO()
        kwargs["plugins"] = [*plugins, self.checkpoint_io]
        super().__init__(precision=precision, **kwargs)  # type: ignore[arg-type]
        # A batch holds ids and masks: no number in it has a precision, and it is not to be copied or changed.
        self.precision_plugin.convert_input = _as_it_is  # type: ignore[method-assign, assignment]
        install(self)

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """As Lightning does, with the weights that the optimiser wants to be kept."""
        optimizers.average(self.optimizers)
        super().save_checkpoint(*args, **kwargs)


def _as_it_is(batch: Any) -> Any:
    return batch
