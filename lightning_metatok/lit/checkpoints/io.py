"""Checkpoints that survive a kill at any moment: three files, of which the last one makes the other two count.

    checkpoints/step-300.ckpt          the whole state, read with weights_only=True: nothing in it can run
    checkpoints/step-300.safetensors   the weights alone, for other programs
    checkpoints/step-300.json          the manifest: step, size and SHA-256 of both; written last
    checkpoints/last.ckpt              a link to the newest of them that is complete

Every file is written under a temporary name beside its target, flushed to the disk, and renamed, and so is the link.
With `trainer.strategy=fsdp2` a folder of `shards` holds the tensors, instead of the safetensors file.
A checkpoint without a manifest that fits its files does not count: killed between any two system calls, a run has the
checkpoints that it had before, or one more. While one is written, `.tmp-step-300` stands there: what a kill left half
done is told by it from what lost its manifest in another way, which is never deleted.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO
from safetensors.torch import save_file
from torch import Tensor

from lightning_metatok.data.cache import sync
from lightning_metatok.errors import UserError
from lightning_metatok.lit.checkpoints import shards
from lightning_metatok.lit.checkpoints.contents import check_kinds

NAME = re.compile(r"step-(\d+)\.(ckpt|safetensors|json|shards)")
ROOM, ZEROS = 2**20, bytes(2**16)
"""Bytes that a disk takes which is not full, and a piece of them."""
TEMPORARY = ".tmp-"
"""Prefix of a file that is being written, or that a kill left."""


class RunCheckpointIO(CheckpointIO):
    """Atomic, checked files in place of Lightning's `torch.save`."""

    def __init__(self) -> None:
        self.at_hand: tuple[Path, dict[str, Any]] | None = None
        """A checkpoint that was read already, so that a large one is read once; it is given away once."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the state, the weights and, last, the manifest; `storage_options` may hold the validation `loss`."""
        path, weights = Path(path), Path(path).with_suffix(".safetensors")
        begin(path)
        try:
            write_state(checkpoint, path)
            write_file(weights, lambda target: _save_weights(checkpoint["state_dict"], target))
            write_manifest(checkpoint, path, [path, weights], (storage_options or {}).get("loss"))
        except BaseException:
            self.remove_checkpoint(path)
            _mark(path).unlink(missing_ok=True)
            raise

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the state, whatever is asked for with weights_only=True."""
        if self.at_hand is not None and self.at_hand[0] == Path(path):
            (_, checkpoint), self.at_hand = self.at_hand, None
            return checkpoint
        return read_state(Path(path), key="ckpt_path")

    def remove_checkpoint(self, path: Any) -> None:
        """Take a checkpoint away, manifest first, so that no part of it counts while the others go."""
        for suffix in (".json", ".ckpt", ".safetensors"):
            Path(path).with_suffix(suffix).unlink(missing_ok=True)
        if (folder := Path(path).with_suffix(shards.SUFFIX)).exists():
            shutil.rmtree(folder)


def begin(path: Path) -> None:
    """Say that a checkpoint is being written, and make room for it; `write_manifest` ends it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _mark(path).touch()
    sync(path.parent)
    RunCheckpointIO().remove_checkpoint(path)


def _mark(path: Path) -> Path:
    return path.with_name(f"{TEMPORARY}{path.stem}")


def write_state(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint's `.ckpt`."""
    write_file(path, lambda target: torch.save(checkpoint, target))


def write_manifest(
    checkpoint: Mapping[str, Any],
    path: Path,
    files: Sequence[Path],
    loss: float | None,
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write the manifest of a checkpoint, which makes it count.

    Args:
        files: those beside the manifest to look at. known: further ones, with the size and sha256 of each.
    """
    described = {file.name: {"size": file.stat().st_size, "sha256": sha256(file)} for file in files}
    description = {"step": int(checkpoint["global_step"]), "loss": loss, "files": {**described, **(known or {})}}
    text = json.dumps(description, indent=1) + "\n"
    write_file(path.with_suffix(".json"), lambda target: target.write_text(text))
    _mark(path).unlink(missing_ok=True)


def add_loss(path: Path, loss: float) -> None:
    """Let the manifest of a checkpoint say the validation `loss`, which was measured after it was written."""
    manifest = path.with_suffix(".json")
    described = {**json.loads(manifest.read_text(encoding="utf-8")), "loss": loss}
    write_file(manifest, lambda target: target.write_text(json.dumps(described, indent=1), encoding="utf-8"))


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, flush it to the disk and give it its name; on failure nothing stays."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except Exception as error:
        if not isinstance(error, OSError) and temporary.exists():
            _raise_if_full(temporary)  # torch and safetensors do not say why they could not write
        raise
    finally:
        temporary.unlink(missing_ok=True)


def read_state(
    path: Path,
    *,
    key: str,
    assemble: bool = True,
    verify: bool = True,
) -> dict[str, Any]:
    """Load a checkpoint on the CPU with weights_only=True; where it has a manifest, that must fit.

    Args:
        assemble: put the tensors of shards together, so that the checkpoint is an ordinary one; else they have shapes
            alone (they are on the meta device). verify: look at the sizes and checksums of the manifest, too.

    Raises:
        UserError: there is no such file, it is damaged, or no checkpoint of this project; `key` is what the user typed.
    """
    if not os.path.isfile(path):
        raise UserError(f"{key}={path}: {'expected a file, this is a folder' if path.is_dir() else 'no such file'}")
    if verify and path.resolve().with_suffix(".json").exists() and (fault := fault_of(path.resolve())) is not None:
        raise UserError(f"{key}={path}: {fault}; --ckpt_path=auto takes the newest valid checkpoint")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch has its own words for old pickles; one line is enough
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many types for a file that is no checkpoint
        raise UserError(f"{key}={path}: cannot be read as a checkpoint ({type(error).__name__})") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{key}={path}: expected a checkpoint with a state_dict, as `fit` writes them")
    if checkpoint.get(shards.MARK):
        folder = path.resolve().with_suffix(shards.SUFFIX)
        try:
            tensors = shards.read_whole(folder) if assemble else shards.shapes(folder)
            checkpoint = shards.put_together(checkpoint, tensors)
        except Exception as error:  # shards without a manifest: anything may be wrong with them
            raise UserError(f"{key}={path}: {folder.name} cannot be read ({type(error).__name__})") from error
    check_kinds(checkpoint, f"{key}={path}")
    return checkpoint


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a `.ckpt`: `step`, `loss`, and `files` with the `size` and `sha256` of each.

    Raises:
        ValueError: it is no manifest. OSError: it cannot be read.
    """
    manifest = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    try:
        files, step, loss = manifest["files"], manifest["step"], manifest.get("loss")
        sound = path.name in files and type(step) is int and (loss is None or isinstance(loss, int | float))
        sound = sound and all(
            _lies_beside(name) and type(file["size"]) is int and isinstance(file["sha256"], str)
            for name, file in files.items()
        )
    except (TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise ValueError("expected step, and files with size and sha256")
    return dict(manifest)


def _lies_beside(name: str) -> bool:
    """Whether a name in a manifest is that of a file beside it, or in a folder of shards there."""
    folder, _, file = name.rpartition("/")
    return Path(file).name == file and (not folder or NAME.fullmatch(folder) is not None)


def fault_of(path: Path) -> str | None:
    """Why the checkpoint `path` does not count, or None if it does."""
    try:
        files = read_manifest(path)["files"]
        for name, expected in files.items():
            file = path.parent / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != expected["size"]:
                return f"{name} has {file.stat().st_size} bytes, its manifest says {expected['size']}"
            if sha256(file) != expected["sha256"]:
                return f"{name} is not what its manifest says (SHA-256)"
    except FileNotFoundError:
        return "its writing never ended" if unfinished(path) else f"{path.with_suffix('.json').name} is missing"
    except (OSError, ValueError) as error:
        return f"{path.with_suffix('.json').name} cannot be read ({type(error).__name__})"
    return None


def unfinished(path: Path) -> bool:
    """Whether a kill interrupted the writing of the checkpoint `path`, so that it never counted."""
    return _mark(path).exists() and not path.with_suffix(".json").exists()


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _raise_if_full(temporary: Path) -> None:
    """Let the system say what it says when one writes on: OSError, where there is no more space."""
    try:
        with temporary.open("ab", buffering=0) as file:
            for _ in range(ROOM // len(ZEROS)):
                if file.write(ZEROS) < len(ZEROS):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
    except OSError as full:
        raise OSError(full.errno, full.strerror, str(temporary.parent)) from full


def _save_weights(state: Mapping[str, Tensor], target: Path) -> None:
    """Write each tensor once; names that share one stand in the metadata."""
    kept: dict[str, Tensor] = {}
    first: dict[tuple[Any, ...], str] = {}
    shared: dict[str, str] = {}
    for name, tensor in state.items():
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first:
            shared[name] = first[place]
        else:
            first[place] = name
            kept[name] = tensor.detach().cpu().contiguous()
    save_file(kept, target, metadata={"format": "pt", **shared})
