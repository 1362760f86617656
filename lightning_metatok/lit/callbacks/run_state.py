"""What a checkpoint must hold beside weights, optimiser and counters, so that a resumed run equals one never killed."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metatok.lit.checkpoints.log_state import LOST, LogState
from lightning_metatok.lit.checkpoints.random_state import random_state, set_random_state
from lightning_metatok.lit.optim import follow
from lightning_metatok.lit.run.loggers import log_folder, log_text


class RunState(Callback):
    """Random generators, what the logs were, the latest metrics, the configuration and the time spent.

    Args:
        config: the configuration of the run, flat: what a resumed run is compared with.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.seconds = 0.0
        self.lost: tuple[int, list[str]] = 0, []
        """What `mend_logs` could not mend: bytes and what to say."""
        self._loaded: dict[str, Any] = {}
        self._logs = LogState()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Metrics that are not logged again are those of the checkpoint."""
        self._trainer, self._since = trainer, time.monotonic()
        metrics = self._loaded.get("metrics", {})
        known = {name: torch.tensor(value) for name, value in metrics.items()}
        trainer._logger_connector._callback_metrics.update(known)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw on where the checkpoint stood; here, because what came before may have drawn."""
        (lost, gaps), self.lost = self.lost, (0, [])
        if gaps and trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics({LOST: lost}, step=trainer.global_step)
            log_text(trainer, LOST, "\n\n".join(gaps))
        if "random" in self._loaded:
            set_random_state(self._loaded["random"])
        theirs = self._loaded.get("config", self.config)
        if any(theirs.get(key) != self.config[key] for key in self.config if key.startswith("model.optimizer.")):
            schedule = trainer.lr_scheduler_configs[0].scheduler
            follow(pl_module.model, pl_module.optimizer_config, trainer.optimizers[0], schedule)  # type: ignore[arg-type]
        self._loaded = {}

    def state_dict(self) -> dict[str, Any]:
        """All of it, in plain types. The logs are on the disk before a checkpoint says how long they are."""
        metrics = {name: float(value) for name, value in self._trainer.callback_metrics.items()}
        folder = log_folder(self._trainer) if self._trainer.is_global_zero else None
        return {
            "random": random_state(),
            **(self._logs(folder) if folder is not None else {"logs": {}, "log_ends": {}}),
            "metrics": metrics,
            "config": self.config,
            "world_size": self._trainer.world_size,
            "seconds": self.seconds + time.monotonic() - self._since,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what the checkpoint holds."""
        self._loaded = state_dict
        self.seconds = state_dict["seconds"]
