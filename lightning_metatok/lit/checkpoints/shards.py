"""The tensors of a checkpoint in pieces, one file a rank, which any number of ranks puts together again.

    checkpoints/step-300.ckpt      everything but tensors of weights and optimiser
    checkpoints/step-300.shards/   shard-00001-....safetensors, ...: the piece of each rank, with where it belongs

Written and read by torch.distributed.checkpoint, as safetensors: nothing in them can run. Names are those of an
ordinary checkpoint with dots: `state_dict.<name>` and `optimizer.<number>.<parameter>.<moment>`.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

SUFFIX = ".shards"
MARK = "sharded"
"""Key of a checkpoint whose tensors are in shards."""
WEIGHTS, OPTIMIZER = "state_dict.", "optimizer."


def taken_apart(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a checkpoint without the tensors of its weights and its optimisers, and these, flat."""
    tensors = {f"{WEIGHTS}{name}": weight for name, weight in checkpoint["state_dict"].items()}
    optimizers = []
    for number, optimizer in enumerate(checkpoint.get("optimizer_states", [])):
        for parameter, moments in optimizer["state"].items():
            tensors |= {f"{OPTIMIZER}{number}.{parameter}.{name}": moment for name, moment in moments.items()}
        optimizers.append({**optimizer, "state": {}})
    return {**checkpoint, "state_dict": {}, "optimizer_states": optimizers, MARK: True}, tensors


def put_together(checkpoint: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The inverse of `taken_apart`."""
    whole = {**checkpoint, "state_dict": {}}
    whole["optimizer_states"] = [{**one, "state": {}} for one in checkpoint["optimizer_states"]]
    del whole[MARK]
    for key, tensor in tensors.items():
        if key.startswith(WEIGHTS):
            whole["state_dict"][key.removeprefix(WEIGHTS)] = tensor
        else:
            number, parameter, name = key.removeprefix(OPTIMIZER).split(".", 2)
            state = whole["optimizer_states"][int(number)]["state"]
            state.setdefault(int(parameter), {})[name] = tensor
    return whole


def write_shards(tensors: Mapping[str, Tensor], folder: Path) -> list[Path]:
    """Write the piece of this rank into `folder`, which exists; all ranks call this. Return the files of this rank.

    Raises:
        OSError: some rank could not write, such as on a full disk; every rank raises it.
    """
    try:
        dcp.save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except dcp.api.CheckpointException as error:
        reason = next(iter(error.failures.values()))[0]
        raise (reason if isinstance(reason, OSError) else OSError(None, str(reason), str(folder))) from error
    return sorted(folder.glob(f"shard-{dist.get_rank() + 1:05d}-*.safetensors"))


def shapes(folder: Path) -> dict[str, Tensor]:
    """Every tensor in the shards, without its memory (on the meta device)."""
    known = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {
        name: torch.empty(one.size, dtype=one.properties.dtype, device="meta")
        for name, one in known.items()
        if isinstance(one, TensorStorageMetadata)
    }


def fill(tensors: dict[str, Tensor], folder: Path, *, alone: bool) -> None:
    """Read the shards into `tensors`, whole ones or distributed ones; `alone`: this process, without the others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=alone)


def read_whole(folder: Path) -> dict[str, Tensor]:
    """Every tensor in the shards, whole, on the CPU of this process."""
    tensors = {name: torch.empty_like(one, device="cpu") for name, one in shapes(folder).items()}
    fill(tensors, folder, alone=True)
    return tensors
