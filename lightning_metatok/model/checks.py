"""What `TransformerConfig` holds its values to, beside what each axis says itself."""

from typing import TYPE_CHECKING, Any

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.model.attention import backends

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig


def expect(right: bool, key: str, value: Any, expected: str) -> None:
    """Raise `UserError` about `model.KEY` where a value is not right."""
    if not right:
        raise UserError(f"model.{key}={value!r}: expected {expected}")


def one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    """Raise `UserError` about `model.KEY` where a value is none of those that are known."""
    expect(value in known, key, value, f"one of {', '.join(known)}{nearest(str(value), known)}")


def check_backend(config: "TransformerConfig") -> None:
    """Raise `UserError` where a backend cannot do what another axis needs."""
    name, for_scores = config.attention_backend, backends.for_scores()
    for needs, able, why in (
        (
            config.family.transforms(config.position_options),
            for_scores,
            f"position={config.position!r} transforms scores",
        ),
        (config.built_mechanism.transforms_scores, for_scores, f"mechanism={config.mechanism!r} transforms scores"),
        (config.denominator != "sum", for_scores, f"denominator={config.denominator!r} is beside the scores"),
        (config.built_pattern.needs_mask, backends.for_masks(), f"pattern={config.pattern!r} needs a mask"),
    ):
        expected = f"one of auto, {', '.join(able)}, because {why}"
        expect(not needs or name in ("auto", *able), "attention_backend", name, expected)
