"""The paper's ablation: positions kept or dropped at meta-tokens, across context lengths.

For every context length (multiples of the training length) the loss per source token is measured once a reading on the
SAME text with the SAME meta-tokens: with positions everywhere, and with positions dropped at meta slots, whichever of
the two the model was trained with. Paper section "positional encoding at meta-tokens" (arXiv 2509.16278, table 2); here
with loss on real text, at 1x, 2x, 4x, and with other readings where they are asked for.
"""

from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console

from lightning_metatok.errors import UserError
from lightning_metatok.lit.ablations.by_length import TAG, write_by_length
from lightning_metatok.lit.ablations.figures import draw_readings, readings_figure, readings_table
from lightning_metatok.lit.ablations.readings import DEFAULT, READINGS, Reading, ReadingLoss, Shuffled
from lightning_metatok.lit.callbacks.offers import Layout, Panel, points
from lightning_metatok.lit.data.protocol import text_of
from lightning_metatok.lit.metrics import SourceTokenLoss
from lightning_metatok.lit.run.loggers import log_folder, show_figure
from lightning_metatok.lit.run.stopping import LOST_IN_VALIDATION, heed
from lightning_metatok.model import TransformerConfig


class PositionAblation(Callback):
    """Evaluate at every validation end, and at the end of `test`.

    Args:
        multiples: Context lengths, as multiples of the training length.
        windows: Number of text windows, each as long as the largest context; all lengths read the same text.
        where: Branches whose positions are dropped: self_attention, meta_attention or both, which is all.
        readings: How the text is read: kept, dropped, shuffled. The others are compared with the first, and text
            without meta-tokens is read that way alone.

    Raises:
        UserError: no reading, one twice, or one that nobody knows.
    """

    def __init__(
        self,
        multiples: list[int] = [1, 2, 4],  # noqa: B006  (never changed; the CLI reads the default)
        windows: int = 16,
        where: Literal["self_attention", "meta_attention", "both"] = "both",
        readings: list[str] = DEFAULT,
    ) -> None:
        self.multiples = sorted(multiples)
        self.windows = windows
        self.where = where
        if not readings or len(set(readings)) < len(readings):
            raise UserError(f"{READINGS.key}={readings}: expected at least one of {', '.join(READINGS)}, each once")
        self.readings: list[Reading] = [READINGS.resolve(name)() for name in readings]
        self.losses: list[ReadingLoss] = []
        self._told: set[int] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to permute positions that meta-tokens share with text.

        Raises:
            UserError: the reading is asked for, and `model.extra_position` is not own.
        """
        choice = pl_module.config.extra_position  # type: ignore[union-attr]
        if choice != "own" and any(isinstance(reading, Shuffled) for reading in self.readings):
            raise UserError(
                f"{READINGS.key}: shuffled permutes positions that meta-tokens have for themselves; "
                f"expected model.extra_position=own with it, not {choice}"
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate and log; not during the sanity check."""
        if not trainer.sanity_checking:
            self._run(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate and log."""
        self._run(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last losses by context length, where TensorBoard is written."""
        folder = log_folder(trainer)
        has_events = any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers)
        if folder is not None and has_events and trainer.is_global_zero:
            write_by_length(folder, self.losses)

    def _run(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.losses = self.evaluate(trainer, pl_module)
        if not self.losses or not trainer.is_global_zero:
            return
        values = {loss.tag: loss.nats for loss in self.losses}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        figure = readings_figure(self.readings, self.losses)
        folder = log_folder(trainer)
        path = None if folder is None else folder / "ablation.png"
        show_figure(trainer, "ablation/positions_at_meta", figure, path)

    # -- what it offers

    def closing(self, console: Console) -> None:
        """Print the table of the last losses."""
        if self.losses:
            console.print(readings_table(self.readings, self.losses))

    def charts(self) -> Layout:
        """All readings by context length in one chart."""
        *first, last = (reading.name for reading in self.readings)
        names = f"{', '.join(first)} and {last}" if first else last
        return {"positions at meta-tokens": {f"{names}, nats; step: context length in tokens": points(TAG)}}

    def panels(self) -> list[Panel]:
        """The figure of the last losses."""
        return [partial(draw_readings, readings=self.readings, losses=self.losses)] if self.losses else []

    def facts(self, config: TransformerConfig) -> dict[str, Any]:
        """The readings, and the one in which the model was trained."""
        trained = next((reading for reading in self.readings if reading.is_as_trained(config)), self.readings[0])
        return {"readings": [reading.name for reading in self.readings], "read_as_trained": trained.name}

    # -- what it measures

    @torch.no_grad()
    def evaluate(self, trainer: Trainer, pl_module: LightningModule) -> list[ReadingLoss]:
        """All losses, on every rank alike. Lengths that the model cannot read are left out, which is said once."""
        data = text_of(trainer)
        has_meta = data.rule.n_meta(data.block_length) > 0
        was_training = pl_module.training
        pl_module.eval()
        losses = []
        for multiple in self.multiples:
            length = data.rule.total_length(multiple * data.block_size)
            limit = pl_module.model.positions.max_positions  # type: ignore[union-attr]
            if limit is not None and length > limit:  # type: ignore[operator]
                self._say_once(trainer, multiple, f"context {length} is left out: model.max_positions={limit}")
                continue
            batches = data.context_batches(multiple, windows=self.windows, largest=max(self.multiples))
            if not batches:
                self._say_once(trainer, multiple, f"context {length} is left out: the validation text is shorter")
                continue
            for reading in self.readings if has_meta else self.readings[:1]:
                metric = SourceTokenLoss().to(pl_module.device)
                for batch in batches:
                    heed(trainer, LOST_IN_VALIDATION)
                    changed, drop_positions = reading.change(batch, self.where)
                    on_device = changed.to(pl_module.device)
                    with trainer.precision_plugin.forward_context():
                        nll_BT = pl_module.nll(on_device, drop_positions=drop_positions)  # type: ignore[operator]
                    metric.update(nll_BT, on_device.targets_BT, pl_module.bytes_V)  # type: ignore[arg-type]
                found = metric.compute()
                nats, bits = found["nats"].item(), None if data.config.masked else found["bits_per_byte"].item()
                losses.append(ReadingLoss(multiple, reading.name, length, nats, bits))
        pl_module.train(was_training)
        return losses

    def _say_once(self, trainer: Trainer, multiple: int, message: str) -> None:
        if multiple not in self._told and trainer.is_global_zero:
            self._told.add(multiple)
            print(f"ablation: {message}")
