"""Start a new run from the weights of another one, and say which parts start fresh.

    part       starts fresh where `model.init_new` names it
    tokens     the embedding, and a head of its own: for other token ids; <|meta|> keeps its row
    positions  rows of a learned table of positions beyond those of the checkpoint
    layers     what a mechanism adds, such as meta-attention, where the checkpoint has none
    pattern    what tokens may see; no weights are its own

All other weights must be there and of the same shape. A fresh part is never silent: it must be asked for, and one line
says what it was.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.lit.checkpoints.contents import check_weights
from lightning_metatok.model import MetaTransformer
from lightning_metatok.model.axis import Axis

PARTS = ("tokens", "positions", "layers", "pattern")
TOKEN_TABLES, POSITION_TABLE = ("embedding.weight", "head.weight"), "positions.table.weight"
SEPARATORS = "separators_V"
FREE_WITH = {
    "tokens": {"vocab_size", "tied_head"},
    "positions": {"max_positions"},
    "layers": {"mechanism", "mechanism_options"},
    "pattern": {"pattern", "pattern_options", "separators"},
}
"""Choices that may differ from the checkpoint's when a part starts fresh."""


def check_parts(parts: Sequence[str], *, init_from: str | None) -> None:
    """Raise UserError for a part that does not exist, or without a checkpoint."""
    for part in parts:
        if part not in PARTS:
            raise UserError(
                f"model.init_new: {part}: expected some of {', '.join(PARTS)}{nearest(str(part), list(PARTS))}"
            )
    if parts and init_from is None:
        raise UserError(f"model.init_new={list(parts)}: expected model.init_from, without it everything starts fresh")


def free_keys(parts: Sequence[str], saved: dict[str, Any]) -> set[str]:
    """Choices of the model that need not be the checkpoint's, whose own choices are `saved`."""
    free = set().union(*(FREE_WITH[part] for part in parts))
    if "layers" in parts and saved.get("mechanism", "none") != "none":  # what is there is read as it was trained
        free -= {"mechanism"}
    return free


def free_options(axis: Axis[Any], parts: Sequence[str], saved: Mapping[str, Any]) -> set[str]:
    """Options of an axis that need not be the checkpoint's: of a new pattern all, of new layers which of them exist."""
    if axis.key not in saved:
        return set()
    if axis.key == "pattern" and "pattern" in parts:
        return set(axis.filled(saved["pattern"], {}))
    if "layers" not in parts:
        return set()
    return set(getattr(axis.find(saved[axis.key]), "free_when_new", ()))


def load_weights(
    model: MetaTransformer,
    weights: Mapping[str, Tensor],
    parts: Sequence[str],
    *,
    source: str,
    meta_ids: Sequence[int],
) -> dict[str, Tensor]:
    """Load `weights` of the checkpoint `source` into `model`, but for the parts that start fresh.

    Args:
        meta_ids: ids of meta-tokens in the checkpoint, for `tokens`; none: nobody knows.

    Returns:
        Rows of meta-tokens [kinds, D], by the name of their table, to be put where the new tokenizer has them.

    Raises:
        UserError: weights are missing, or left over, or of another shape.
    """
    fresh: list[str] = []
    rows: dict[str, Tensor] = {}
    # Copies: what starts fresh goes through `load_state_dict` too, which must not be given its own memory.
    mine, weights = {name: weight.clone() for name, weight in model.state_dict().items()}, dict(weights)
    if "tokens" in parts:
        for name in TOKEN_TABLES:
            theirs = weights.pop(name, None)
            if name not in mine:
                continue
            weights[name] = mine[name]
            if theirs is not None and meta_ids and max(meta_ids) < len(theirs):
                rows[name] = theirs[list(meta_ids)].clone()
        kept = " (<|meta|> keeps its row)" if rows else ""
        fresh.append(f"the embedding of {len(mine[TOKEN_TABLES[0]])} ids{kept}")
    if "positions" in parts and POSITION_TABLE in mine and POSITION_TABLE in weights:
        table, theirs = mine[POSITION_TABLE], weights[POSITION_TABLE]
        if len(table) < len(theirs):
            raise UserError(
                f"model.max_positions={len(table)}: the checkpoint has {len(theirs)}; expected at least as many"
            )
        if len(table) > len(theirs):
            fresh.append(f"positions {len(theirs)} to {len(table) - 1}")
            table[: len(theirs)] = theirs
            weights[POSITION_TABLE] = table
    if "layers" in parts:
        added = model.weights_of_mechanism()
        new = {name: said for name, said in added.items() if name not in weights}
        weights |= {name: mine[name] for name in new}
        for label in dict.fromkeys(label for label, _ in new.values()):
            blocks = sorted({block for found, block in new.values() if found == label and block is not None})
            fresh.append(f"{label} in blocks {', '.join(map(str, blocks))}" if blocks else label)
    if "pattern" in parts:
        weights.pop(SEPARATORS, None)
        weights |= {name: mine[name] for name in mine if name == SEPARATORS}  # the data fill it
        fresh.append(f"the pattern ({model.config.pattern})")
    check_weights(mine, weights, f"model.init_from={source}")
    model.load_state_dict(weights)
    if fresh:
        say_once(f"model.init_from={source}: fresh are {', '.join(fresh)}; all other weights are the checkpoint's")
    return rows


@rank_zero_only
def say_once(line: str) -> None:
    """Print on rank 0."""
    print(line)
