"""What `TransformerConfig` holds its values to, beside what each axis says itself."""

from typing import TYPE_CHECKING, Any

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.model.attention import backends
from lightning_metatok.model.branch import EVERYWHERE, SELF_ATTENTION

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig

DROP_NOWHERE = "none"


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


def check_drop_positions(config: "TransformerConfig", choice: str) -> None:
    """Raise `UserError` when `choice` is no way to drop positions, or would silently drop nothing."""
    added = dict.fromkeys(name for layer in range(config.n_layers) for name in config.added(layer))
    # Models are compared on one choice, so the branch of the mechanism by default may be named without it, too.
    known = dict.fromkeys((DROP_NOWHERE, SELF_ATTENTION.name, "meta_attention", *added, EVERYWHERE))
    one_of("drop_positions", choice, tuple(known))
    family = config.family
    only_embeds = family.embeds and not (family.rotates or family.transforms(config.position_options))
    expect(
        not (only_embeds and choice not in (DROP_NOWHERE, EVERYWHERE)),
        "drop_positions",
        choice,
        f"{DROP_NOWHERE!r} or {EVERYWHERE!r}, because position={config.position!r} is added before all branches",
    )
