"""Positional encodings: one family a file, one interface for all (`base.PositionEncoding`)."""

from typing import Any

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.model.positions.base import PositionEncoding
from lightning_metatok.model.positions.learned import LearnedPositions
from lightning_metatok.model.positions.none import NoPositions
from lightning_metatok.model.positions.rotary import RotaryPositions

FAMILIES: dict[str, type[PositionEncoding]] = {
    "learned": LearnedPositions,
    "none": NoPositions,
    "rotary": RotaryPositions,
}


def build(
    name: str, *, n_heads: int, head_dim: int, d_model: int, max_positions: int, **options: Any
) -> PositionEncoding:
    """Build the encoding `name`; `options` are its family's own (rotary: base).

    Raises:
        UserError: no family has that name.
    """
    if name not in FAMILIES:
        raise UserError(f"model.position={name!r}: expected one of {', '.join(FAMILIES)}{nearest(name, FAMILIES)}")
    sizes = {"n_heads": n_heads, "head_dim": head_dim, "d_model": d_model, "max_positions": max_positions}
    return FAMILIES[name](**sizes, **options)


__all__ = ["FAMILIES", "LearnedPositions", "NoPositions", "PositionEncoding", "RotaryPositions", "build"]
