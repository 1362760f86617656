"""Write what `predict` found: the loss of every source target, one JSON line a block."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class PredictionWriter(Callback):
    """Write `predictions-<rank>.jsonl` into `folder`: ``{"block", "tokens", "meta", "nll"}``.

    `nll` is in nats and null where nothing is scored; `tokens` and `meta` (0 or 1) are aligned with it: entry t is the
    loss of predicting the next token from position t.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._blocks = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a temporary file, renamed when all is written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / f"predictions-{trainer.global_rank}.jsonl"
        self._temporary = self.path.with_suffix(".jsonl.part")
        self._file = self._temporary.open("w", encoding="utf-8")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the blocks of a batch."""
        columns = (outputs[name].tolist() for name in ("tokens_BT", "meta_mask_BT", "targets_BT", "nll_BT"))
        for tokens, meta, targets, nll in zip(*columns, strict=True):
            scored = [round(value, 5) if target >= 0 else None for value, target in zip(nll, targets, strict=True)]
            row = {"block": self._blocks, "tokens": tokens, "meta": [int(m) for m in meta], "nll": scored}
            self._file.write(json.dumps(row) + "\n")
            self._blocks += 1

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the file visible under its name."""
        self._file.close()
        self._temporary.replace(self.path)
        print(f"{self._blocks} blocks written to {self.path}")
