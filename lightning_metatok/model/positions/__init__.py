"""Positional encodings: one family a file, one interface for all (`base.PositionEncoding`)."""

from typing import Any

from lightning_metatok.model.axis import Axis
from lightning_metatok.model.positions.alibi import AlibiPositions
from lightning_metatok.model.positions.base import PositionEncoding, Rows, Sizes
from lightning_metatok.model.positions.coupled import CoupledPositions
from lightning_metatok.model.positions.dape import DapePositions
from lightning_metatok.model.positions.fire import FirePositions
from lightning_metatok.model.positions.fope import FourierPositions
from lightning_metatok.model.positions.kerple import KerpleLogPositions, KerplePowerPositions
from lightning_metatok.model.positions.learned import LearnedPositions
from lightning_metatok.model.positions.none import NoPositions
from lightning_metatok.model.positions.rotary import RotaryPositions
from lightning_metatok.model.positions.sandwich import SandwichPositions
from lightning_metatok.model.positions.sinusoidal import SinusoidalPositions
from lightning_metatok.model.positions.t5 import T5Positions
from lightning_metatok.model.positions.transformer_xl import TransformerXLPositions
from lightning_metatok.model.positions.xpos import XPosPositions

FAMILIES: dict[str, type[PositionEncoding]] = {
    "none": NoPositions,
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "coupled": CoupledPositions,
    "rotary": RotaryPositions,
    "xpos": XPosPositions,
    "fope": FourierPositions,
    "alibi": AlibiPositions,
    "t5": T5Positions,
    "kerple_log": KerpleLogPositions,
    "kerple_power": KerplePowerPositions,
    "sandwich": SandwichPositions,
    "fire": FirePositions,
    "dape": DapePositions,
    "transformer_xl": TransformerXLPositions,
}

AXIS = Axis("position", PositionEncoding, FAMILIES, given=("sizes",))


def build(
    name: str,
    *,
    n_layers: int,
    n_heads: int,
    head_dim: int,
    d_model: int,
    max_positions: int,
    **options: Any,
) -> PositionEncoding:
    """Build the encoding `name`; `options` are its family's own.

    Raises:
        UserError: no family has that name, or it cannot take these options.
    """
    check_options(name, options)
    # Each family has a constructor of its own, which takes its options.
    build_family: Any = AXIS.find(name)
    encoding: PositionEncoding = build_family(Sizes(n_layers, n_heads, head_dim, d_model, max_positions), **options)
    return encoding


def check_options(name: str, options: dict[str, Any]) -> None:
    """Raise `UserError` when no family has that name, or it cannot take these options."""
    AXIS.check(name, options)


__all__ = [
    "AXIS",
    "FAMILIES",
    "CoupledPositions",
    "FourierPositions",
    "LearnedPositions",
    "NoPositions",
    "PositionEncoding",
    "RotaryPositions",
    "Rows",
    "SinusoidalPositions",
    "Sizes",
    "XPosPositions",
    "build",
    "check_options",
]
