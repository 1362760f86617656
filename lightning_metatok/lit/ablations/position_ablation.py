"""The paper's ablation: positions kept or dropped at meta-tokens, across context lengths.

For every context length (multiples of the training length) the loss per source token is measured twice on the SAME
text with the SAME meta-tokens: with positions everywhere, and with positions dropped at meta slots, whichever of the
two the model was trained with. Paper section "positional encoding at meta-tokens" (arXiv 2509.16278, table 2); here
with loss on real text, at 1x, 2x, 4x.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metatok.lit.ablations.figures import ablation_figure, save_figure
from lightning_metatok.lit.metrics import SourceTokenLoss
from lightning_metatok.lit.run.loggers import log_figure, log_folder
from lightning_metatok.lit.run.stopping import LOST_IN_VALIDATION, heed


@dataclass(frozen=True)
class Cell:
    """One cell of the ablation: `multiple` of the training length, positions `kept` or `dropped`."""

    multiple: int
    positions: Literal["kept", "dropped"]
    length: int
    nats: float
    bits_per_byte: float

    @property
    def tag(self) -> str:
        """Name in TensorBoard and metrics.jsonl."""
        return f"ablation/{self.positions}_{self.multiple}x"


class PositionAblation(Callback):
    """Evaluate at every validation end, and at the end of `test`.

    Args:
        multiples: Context lengths, as multiples of the training length.
        windows: Number of text windows, each as long as the largest context; all lengths read the same text.
        where: Branches whose positions are dropped: self_attention, meta_attention or both, which is all.
    """

    def __init__(
        self,
        multiples: list[int] = [1, 2, 4],  # noqa: B006  (never changed; the CLI reads the default)
        windows: int = 16,
        where: Literal["self_attention", "meta_attention", "both"] = "both",
    ) -> None:
        self.multiples = sorted(multiples)
        self.windows = windows
        self.where = where
        self.cells: list[Cell] = []
        self._told: set[int] = set()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate and log; not during the sanity check."""
        if not trainer.sanity_checking:
            self._run(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate and log."""
        self._run(trainer, pl_module)

    def _run(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.cells = self.evaluate(trainer, pl_module)
        if not self.cells or not trainer.is_global_zero:
            return
        values = {cell.tag: cell.nats for cell in self.cells}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        figure = ablation_figure(self.cells)
        log_figure(trainer, "ablation/positions_at_meta", figure)
        if (folder := log_folder(trainer)) is not None:
            save_figure(figure, folder / "ablation.png")

    @torch.no_grad()
    def evaluate(self, trainer: Trainer, pl_module: LightningModule) -> list[Cell]:
        """All cells, on every rank alike. Lengths that the model cannot read are left out, which is said once."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        has_meta = data.rule.n_meta(data.block_length) > 0
        was_training = pl_module.training
        pl_module.eval()
        cells = []
        for multiple in self.multiples:
            length = data.rule.total_length(multiple * data.block_size)
            limit = pl_module.model.positions.max_positions  # type: ignore[union-attr]
            if limit is not None and length > limit:
                self._say_once(trainer, multiple, f"context {length} is left out: model.max_positions={limit}")
                continue
            batches = data.context_batches(multiple, windows=self.windows, largest=max(self.multiples))
            if not batches:
                self._say_once(trainer, multiple, f"context {length} is left out: the validation text is shorter")
                continue
            for positions in ("kept", "dropped") if has_meta else ("kept",):
                metric = SourceTokenLoss().to(pl_module.device)
                for batch in batches:
                    heed(trainer, LOST_IN_VALIDATION)
                    on_device = batch.to(pl_module.device)
                    with trainer.precision_plugin.forward_context():
                        nll_BT = pl_module.nll(  # type: ignore[operator]
                            on_device, drop_positions=self.where if positions == "dropped" else "none"
                        )
                    metric.update(nll_BT, on_device.targets_BT, pl_module.bytes_V)  # type: ignore[arg-type]
                values = metric.compute()
                cells.append(Cell(multiple, positions, length, values["nats"].item(), values["bits_per_byte"].item()))
        pl_module.train(was_training)
        return cells

    def _say_once(self, trainer: Trainer, multiple: int, message: str) -> None:
        if multiple not in self._told and trainer.is_global_zero:
            self._told.add(multiple)
            print(f"ablation: {message}")
