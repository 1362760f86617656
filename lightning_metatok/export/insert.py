"""Meta-tokens into prompts for a model of transformers, by the rule that stood in training."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from lightning_metatok.data import InjectionRule
from lightning_metatok.data.kinds import MetaIds, ids_of
from lightning_metatok.errors import UserError
from lightning_metatok.lit.checkpoints.marks import FREE, Marks, rule_for


def insert_meta(
    ids: Sequence[int],
    *,
    meta_id: MetaIds,
    marks: Mapping[str, Any] | None,
    fraction: float | None = None,
    placement: str | None = None,
    seed: int = 0,
    index: int = 0,
    punctuation_ids: Sequence[int] = (),
) -> list[int]:
    """Return the ids of a prompt with meta-tokens in it.

    Args:
        ids: of the prompt; where it holds meta-tokens already, it stays as it is.
        meta_id: `model.config.meta_ids`, of all kinds. marks: `model.config.marks`: where they stood in training.
        fraction, placement: other ones than in training; placement is one of `FREE`.
        seed, index: choose the places where the rule draws them. punctuation_ids: for the rule `punctuation`.

    Raises:
        UserError: nothing says how many, or the placement is none that a prompt can follow.
    """
    if placement not in (None, *FREE):
        raise UserError(f"placement={placement!r}: expected one of {', '.join(FREE)}")
    stood = (
        None if marks is None else Marks(float(marks["fraction"]), str(marks["placement"]), marks.get("options", {}))
    )
    rule, _ = rule_for(stood, fraction, placement)
    return insert_by(rule, ids, meta_id=meta_id, seed=seed, index=index, punctuation_ids=punctuation_ids)


def insert_by(
    rule: InjectionRule | None,
    ids: Sequence[int],
    *,
    meta_id: MetaIds,
    seed: int = 0,
    index: int = 0,
    punctuation_ids: Sequence[int] = (),
) -> list[int]:
    """Return the ids of a prompt with meta-tokens by `rule`, None for none; a prompt that has some stays as it is."""
    if rule is None or not ids or not set(ids_of(meta_id)).isdisjoint(ids):
        return list(ids)
    injected = replace(rule, length="grow").apply(
        torch.tensor([list(ids)]),
        block_length=len(ids),
        meta_id=meta_id,
        seed=seed,
        index=index,
        after_ids=punctuation_ids,
    )
    found: list[int] = injected.tokens_BT[0].tolist()
    return found
