"""What a run was made with, in `environment.json`: versions, processor, processes. No name of a machine, no path."""

import json
import platform
from importlib.metadata import version

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from lightning_metatok.files import write_atomically
from lightning_metatok.lit.run.loggers import log_folder
from lightning_metatok.runtime import usable_cores

ENVIRONMENT = "environment.json"


class Environment(Callback):
    """Write the file when a fit starts; where a run goes on elsewhere, it says where it went on last."""

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it, where there is a run folder."""
        if (folder := log_folder(trainer)) is not None:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / ENVIRONMENT, json.dumps(environment(trainer), indent=2) + "\n")


def environment(trainer: Trainer) -> dict[str, str]:
    """Return names and values, both to be shown as they are."""
    device = trainer.strategy.root_device
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    else:
        processor = f"{platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}"
    return {
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "Lightning": version("lightning"),
        "system": platform.system(),
        "processor": processor,
        "cores": str(len(usable_cores())),
        "threads a process": str(torch.get_num_threads()),
        "processes": str(trainer.world_size),
        "strategy": type(trainer.strategy).__name__,
        "precision taken": str(trainer.precision),
    }
