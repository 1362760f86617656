"""The gradient of one optimiser step, of a task or of text, by whatever micro-batches and ranks; also as a script."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from lightning_metatok.lit import MetaTokenDataModule, MetaTokenLM, TaskDataModule, Trainer
from lightning_metatok.lit.sharded import whole

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
MODEL = {"n_layers": 2, "n_heads": 2, "d_model": 32, "max_positions": 512}


class Keep(Callback):
    """Keeps what the step has before the optimiser sees it, and the batches."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.gradient = torch.empty(0)

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        self.batches.append(batch)

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self.gradient = flat(module)


def flat(module: MetaTokenLM) -> torch.Tensor:
    """The gradient as one vector."""
    return torch.cat([whole(p.grad).flatten() for p in module.model.parameters() if p.grad is not None]).clone()


def step(options: dict[str, Any], model: dict[str, Any], size: int, parts: int, **trainer: Any) -> Keep:
    """Take a step of `parts` micro-batches of `size` rows a rank; `options` are of a task, or of text."""
    kind: Any = TaskDataModule if "task" in options else MetaTokenDataModule
    data, keep = kind(**options, batch_size=size, seed=3), Keep()
    data.prepare_data()
    data.setup("fit")
    torch.manual_seed(0)
    module = MetaTokenLM(**{**MODEL, "vocab_size": data.tokenizer.vocab_size, **model})
    options = {"max_steps": 1, "limit_val_batches": 0, "accelerator": "cpu", "precision": "32-true", **QUIET, **trainer}
    Trainer(accumulate_grad_batches=parts, callbacks=[keep], **options).fit(module, datamodule=data)
    return keep


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    given = json.loads(sys.argv[1])
    kept = step(given["data"], given["model"], given["size"], given["parts"], devices=2, strategy=given["strategy"])
    if torch.distributed.get_rank() == 0:
        torch.save(kept.gradient, Path(sys.argv[2]))
