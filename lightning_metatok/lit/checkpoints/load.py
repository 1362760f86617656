"""A trained model from its checkpoint alone, without a run around it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_metatok.data import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.lit.checkpoints import marks
from lightning_metatok.lit.checkpoints.contents import TOKENIZER_KEY, config_of, tokenizer_of, weights_of
from lightning_metatok.lit.checkpoints.io import read_state
from lightning_metatok.model import MetaTransformer, build


def load_model(path: Path, *, trust: bool = False) -> tuple[MetaTransformer, MetaTokenizer]:
    """The transformer of a checkpoint, ready to evaluate, and the tokenizer that it carries. As `load_trained`."""
    return load_trained(path, trust=trust)[:2]


def load_trained(path: Path, *, trust: bool = False) -> tuple[MetaTransformer, MetaTokenizer, marks.Marks | None]:
    """What `load_model` returns, and where marks stood in training, as far as something says it.

    Args:
        path: Of the checkpoint.
        trust: Import classes of other packages that it names.

    Raises:
        UserError: no such file, or not a checkpoint of this project, or it needs code of others, or it fills in hidden
            tokens and has no next one.
    """
    return trained_of(read_state(path, key="--ckpt_path"), path, trust=trust)


def trained_of(
    checkpoint: Mapping[str, Any], path: Path, *, trust: bool = False, key: str = "--ckpt_path"
) -> tuple[MetaTransformer, MetaTokenizer, marks.Marks | None]:
    """What `load_trained` returns, of a checkpoint that is read already; `key` is what the user typed."""
    if TOKENIZER_KEY not in checkpoint or "hyper_parameters" not in checkpoint:
        raise UserError(f"{key}={path}: expected a checkpoint that carries its tokenizer, as `fit` writes them")
    source = f"{key}={path}"
    config, tokenizer = config_of(checkpoint, source, trust=trust), tokenizer_of(checkpoint, source)
    config.check_writes(f"{source}: ")
    if tokenizer.vocab_size > config.vocab_size:
        n_ids = tokenizer.vocab_size
        raise UserError(
            f"{source}: its tokenizer has {n_ids} ids, its model {config.vocab_size}; expected at least as many"
        )
    found = marks.marks_of(checkpoint, path, source)
    model = build(config)
    model.load_state_dict(weights_of(checkpoint))
    return model.eval(), tokenizer, found


def trained_length(checkpoint: Mapping[str, Any]) -> int | None:
    """Source tokens of a block of text that a checkpoint was trained on; None: nothing says it, as of a task."""
    config = checkpoint.get("callbacks", {}).get("RunState", {}).get("config", {})
    block, share = config.get("data.block_size"), config.get("data.meta_fraction", 0.0)
    if not isinstance(block, int):
        return None
    return block if config.get("data.meta_length") != "within" else round(block * (1 - float(share)))
