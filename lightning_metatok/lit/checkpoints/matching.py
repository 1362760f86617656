"""Whether a checkpoint matches the model that is to take its weights, and the data whose text it is to read."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lightning_metatok import old_keys
from lightning_metatok.data import MetaTokenizer
from lightning_metatok.data.kinds import KEY
from lightning_metatok.errors import UserError
from lightning_metatok.lit.checkpoints.contents import AXES, TOKENIZER_KEY
from lightning_metatok.lit.checkpoints.init_from import FREE_WITH, PARTS, free_keys, free_options
from lightning_metatok.meta_tokens import without_kinds
from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.model.axis import Axis

FREE_AFTER_TRAINING = {
    "max_positions",
    "dropout",
    "drop_positions",
    "extra_position",
    "drop_at",
    "attention_backend",
    "activation_checkpointing",
    "kinds_from",
}
"""Choices that weights do not depend on, so that a checkpoint may be read with others (but a table has its size).
Which options of an axis are such choices, its class says."""


def check_matches(
    checkpoint: Mapping[str, Any],
    model: MetaTransformer,
    tokenizer: MetaTokenizer | None,
    new: Sequence[str] = (),
) -> MetaTokenizer | None:
    """Refuse weights of another shape or another tokenizer, naming what differs.

    Args:
        checkpoint: its contents.
        model: what is to take its weights.
        tokenizer: of the data; None: not known yet.
        new: parts that start fresh, of PARTS.

    Returns:
        The tokenizer to read with: the one given, else the one that the checkpoint carries.

    Raises:
        UserError: the checkpoint does not fit this model or this data.
    """
    saved, mine = old_keys.translated(checkpoint.get("hyper_parameters", {})), asdict(model.config)
    encoding = model.positions
    sized = encoding.max_positions is not None or encoding.fixes_max_positions
    free = FREE_AFTER_TRAINING - ({"max_positions"} if sized else set())
    free |= free_keys(new, saved) | {f"{axis.key}_options" for axis in AXES}
    for key in (key for key in mine if key not in free):
        if key in saved and saved[key] != mine[key]:
            raise UserError(
                f"model.{key}={mine[key]}: the checkpoint was trained with {saved[key]}; expected the same value"
                f"{hint(key)}"
            )
    for axis in AXES:
        _check_options(axis, saved, mine, free_options(axis, new, saved))
    if TOKENIZER_KEY not in checkpoint or "tokens" in new:
        return tokenizer
    carried = MetaTokenizer.from_json(checkpoint[TOKENIZER_KEY])
    if tokenizer is None:
        return carried
    check_tokenizer(carried, tokenizer)
    return tokenizer


def _check_options(axis: Axis[Any], saved: dict[str, Any], mine: dict[str, Any], free: set[str]) -> None:
    if saved.get(axis.key, mine[axis.key]) != mine[axis.key] or not saved:
        return  # another class, which was free to differ
    name, options = mine[axis.key], f"{axis.key}_options"
    theirs, ours = (axis.fixed(name, of.get(options, {})) for of in (saved, mine))
    for key in (key for key in ours if key not in free and ours[key] != theirs.get(key)):
        raise UserError(
            f"model.{options}.{key}={ours[key]}: the checkpoint was trained with {theirs.get(key)}; "
            f"expected the same value{hint(options) if key in free_options(axis, PARTS, saved) else ''}"
        )


def check_tokenizer(checkpoint: MetaTokenizer, data: MetaTokenizer) -> None:
    """Raise UserError unless both read text as the same ids."""
    theirs, mine = (without_kinds(one.to_json().encode()) for one in (checkpoint, data))
    if len(checkpoint.kinds) != len(data.kinds) and theirs == mine:
        n = len(checkpoint.kinds)
        raise UserError(f"{KEY}={len(data.kinds)}: the checkpoint has {n} kinds of meta-tokens; expected {n}")
    if checkpoint.fingerprint() != data.fingerprint():
        raise UserError(
            f"data.tokenizer: the checkpoint's tokenizer ({checkpoint.vocab_size} ids) is not that of the data "
            f"({data.vocab_size} ids): expected data.tokenizer=<its run folder>/tokenizer.json"
        )


def separator_ids(config: TransformerConfig, tokenizer: MetaTokenizer) -> tuple[int, ...]:
    """Return the ids that `model.separators` stands for.

    Raises:
        UserError: a text of it ends no token.
    """
    for text in config.separators:
        if not tokenizer.ending_in([text]):
            raise UserError(
                f"model.separators: {text!r}: no token of the tokenizer ends so; expected texts that end some, such as "
                r"'.' or '\n' (in YAML in double quotes)"
            )
    return tokenizer.ending_in(config.separators)


def hint(key: str) -> str:
    """Where a part that depends on `model.<key>` could start fresh, how to ask for that."""
    parts = [part for part in PARTS if key in FREE_WITH[part]]
    return f", or with model.init_from: model.init_new=[{parts[0]}]" if parts else ""
