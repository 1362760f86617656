"""FSDP2 (`trainer.strategy=fsdp2`): weights, gradients and optimiser state in pieces, one a rank.

Each block is gathered when it is needed, and its pieces are all that a rank keeps (ZeRO-3). Lightning's own FSDP
refuses CPUs; its ModelParallelStrategy, on which this stands, does not, so that everything here runs with gloo, too.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from lightning_metatok.data.cache import sync
from lightning_metatok.errors import UserError
from lightning_metatok.lit.checkpoints import shards
from lightning_metatok.lit.checkpoints.io import (
    TEMPORARY,
    begin,
    read_state,
    sha256,
    write_manifest,
    write_state,
)
from lightning_metatok.model import MetaTransformer

NAME = "fsdp2"
PRECISIONS: Mapping[str, torch.dtype | None] = {"32-true": None, "32": None, "bf16-mixed": torch.bfloat16}
"""Precision of a trainer, and the type that weights are gathered and computed in (None: as they are kept, float32)."""


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all ranks, and checkpoints as `RunCheckpointIO` makes them, with tensors in shards."""

    def __init__(self, precision: str) -> None:
        """Prepare for `precision`; weights are kept in float32, and gradients are summed in it.

        Raises:
            UserError: a precision that is not in `PRECISIONS`.
        """
        if precision not in PRECISIONS:
            raise UserError(f"trainer.precision={precision!r}: expected one of {', '.join(PRECISIONS)} with {NAME}")
        super().__init__(tensor_parallel_size=1)
        self.policy = MixedPrecisionPolicy(param_dtype=PRECISIONS[precision], reduce_dtype=torch.float32)

    def setup_environment(self) -> None:
        """All ranks share the batch; none shares a layer."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def shard(self, model: MetaTransformer) -> None:
        """Leave each rank its piece of every block, and of what stands around the blocks; once."""
        if any(isinstance(weight, DTensor) for weight in model.parameters()):
            return
        mesh = self.device_mesh["data_parallel"]
        for block in model.blocks:
            fully_shard(block, mesh=mesh, mp_policy=self.policy)
        fully_shard(model, mesh=mesh, mp_policy=self.policy)

    # -- checkpoints

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The pieces of this rank, by the names of an ordinary checkpoint."""
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The pieces of this rank, by the numbers of an ordinary checkpoint."""
        return (optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer).state_dict()

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Write shards, state and, last, the manifest; killed at any moment, it leaves what was there before."""
        path = Path(filepath)
        folder, temporary = path.with_suffix(shards.SUFFIX), path.with_name(f"{TEMPORARY}{path.stem}{shards.SUFFIX}")
        rest, tensors = shards.taken_apart(checkpoint)
        if self.is_global_zero:
            begin(path)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
        self.barrier()
        mine = {}
        for file in shards.write_shards(tensors, temporary):
            sync(file)
            mine[f"{folder.name}/{file.name}"] = {"size": file.stat().st_size, "sha256": sha256(file)}
        of_all: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(of_all, mine)  # each rank vouches for what it wrote
        if self.is_global_zero:
            sync(temporary)
            temporary.rename(folder)
            write_state(rest, path)
            files = {name: entry for one in of_all for name, entry in one.items()}
            write_manifest(rest, path, [path], (storage_options or {}).get("loss"), files)
        self.barrier()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the piece of this rank into model and optimiser, from shards of any number of ranks or a whole file."""
        path = Path(checkpoint_path)
        at_hand = getattr(self.checkpoint_io, "at_hand", None)
        if at_hand is not None and at_hand[0] == path:
            checkpoint, self.checkpoint_io.at_hand = at_hand[1], None  # type: ignore[attr-defined]
        else:
            checkpoint = read_state(path, key="ckpt_path", assemble=False)
        assert self.lightning_module is not None
        model, optimizers = self.lightning_module, self.optimizers if checkpoint.get("optimizer_states") else []
        weights = dict(model.state_dict())
        targets = {f"{shards.WEIGHTS}{name}": weight for name, weight in weights.items()}
        rest, given = shards.taken_apart(checkpoint)
        for number, optimizer in enumerate(optimizers):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            prefix = f"{shards.OPTIMIZER}{number}."
            for key, moment in given.items():
                if key.startswith(prefix):
                    parameter = parameters[int(key.removeprefix(prefix).partition(".")[0])]
                    same = moment.shape == parameter.shape
                    targets[key] = torch.zeros_like(parameter.detach()) if same else torch.zeros(moment.shape)
        if any(tensor.is_meta for tensor in given.values()):
            shards.fill(targets, path.resolve().with_suffix(shards.SUFFIX), alone=False)
        else:
            for key, target in targets.items():
                _copy(given[key], target)
        model.load_state_dict({name: targets[f"{shards.WEIGHTS}{name}"] for name in weights})
        whole = shards.put_together(rest, targets)
        for optimizer, state in zip(optimizers, whole["optimizer_states"], strict=False):
            optimizer.load_state_dict(state)
        return {**whole, "state_dict": {}, "optimizer_states": []}


def _copy(whole_tensor: Tensor, target: Tensor) -> None:
    """Copy a whole tensor, the same on every rank, or this rank's piece of it."""
    with torch.no_grad():
        if isinstance(target, DTensor):
            given = whole_tensor.to(target.device)
            whole_tensor = distribute_tensor(given, target.device_mesh, target.placements, src_data_rank=None)
        target.copy_(whole_tensor)


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its pieces; all ranks call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def is_sharded(trainer: Trainer) -> bool:
    """Whether the model runs only where all ranks run it together."""
    return isinstance(trainer.strategy, ShardedStrategy)
