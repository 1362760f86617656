"""The Lightning shell: module, data module, trainer, callbacks."""

from lightning_metatok.lit.data.task import TaskDataModule
from lightning_metatok.lit.data.text import MetaTokenDataModule
from lightning_metatok.lit.module import MetaTokenLM
from lightning_metatok.lit.trainer import Trainer

__all__ = ["MetaTokenDataModule", "MetaTokenLM", "TaskDataModule", "Trainer"]
