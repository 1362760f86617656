"""Rotary positions as config.json says them, for the families that have them."""

from collections.abc import Mapping
from typing import Any

from lightning_metatok.export.families.base import refuse_unless
from lightning_metatok.model import TransformerConfig


def why_not_plain(config: TransformerConfig, name: str, *, partial: bool = False) -> str | None:
    """Return why positions are not those of a family, as a clause.

    Args:
        name: of the family. partial: it can turn a part of each head alone.
    """
    options = config.position_options
    if config.position != "rotary":
        return f"model.position={config.position!r}, where {name} has 'rotary'"
    for key, usual in (("pairing", "half"), ("scaling", "none"), *(() if partial else (("fraction", 1.0),))):
        if (value := options.get(key, usual)) != usual:
            return f"model.position_options.{key}={value!r}"
    if int(options.get("fraction", 1.0) * config.head_dim) % 2:
        return f"model.position_options.fraction={options['fraction']!r}, which leaves an odd dimension"
    return None


def rope_parameters(config: TransformerConfig) -> dict[str, Any]:
    """Return them as transformers wants them."""
    options = config.position_options
    return {
        "rope_type": "default",
        "rope_theta": options.get("base", 10000.0),
        "partial_rotary_factor": options.get("fraction", 1.0),
    }


def position_options(theirs: Mapping[str, Any], family: str) -> dict[str, Any]:
    """Return our options. Raises `UserError` for a scaling that we do not have."""
    rope = theirs["rope_parameters"]
    kind, factor = rope.get("rope_type", "default"), rope.get("factor", 1.0)
    known = {"default", "linear"}
    refuse_unless(kind in known, family, "rope_parameters.rope_type", kind, f"one of {', '.join(sorted(known))}")
    found: dict[str, Any] = {"base": float(rope["rope_theta"])}
    if (fraction := rope.get("partial_rotary_factor", 1.0)) != 1.0:
        found["fraction"] = float(fraction)
    return found | ({"scaling": "linear", "factor": float(factor)} if kind == "linear" else {})
