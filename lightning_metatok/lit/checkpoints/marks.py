"""Where meta-tokens stood when a checkpoint was trained, so that prompts get theirs by the same rule.

A checkpoint carries it. For one of an earlier version it is read from the configuration that stands in it, or in the
run folder around it; where nothing says it, nothing is guessed.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning_metatok.data import InjectionRule
from lightning_metatok.errors import UserError
from lightning_metatok.lit.checkpoints import CONFIG
from lightning_metatok.yaml_files import followed, read_config

KEY = "marks"
FREE = ("random", "periodic", "punctuation")
"""Placements that need nothing but a fraction, so that any prompt can follow them."""
OWN = ("chunk_end", "prefix", "suffix")
"""Placements that say themselves how many there are, in a text of any length."""
NONE = "none"


@dataclass(frozen=True)
class Marks:
    """The share of meta-tokens in training, 0 to 0.5, and their placement with its options, of text or of a task."""

    fraction: float
    placement: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """What a checkpoint holds; options where there are any."""
        return {name: value for name, value in asdict(self).items() if value != {}}

    @classmethod
    def of(cls, data: Any) -> "Marks | None":
        """Those of a data module, of text or of a task; None: it has no such options."""
        rule = getattr(data, "rule", None)
        if rule is not None:
            return cls(float(rule.fraction), str(rule.placement), dict(rule.options))
        fraction, placement = (getattr(data, f"meta_{name}", None) for name in ("fraction", "placement"))
        return None if fraction is None or placement is None else cls(float(fraction), str(placement))


def rule_for(marks: Marks | None, fraction: float | None, placement: str | None) -> tuple[InjectionRule | None, str]:
    """The rule that a prompt gets its meta-tokens by, None for none, and what to say of the checkpoint, or nothing.

    Args:
        marks: those of training; None: nothing says. fraction, placement: what the user wants instead; placement is
            one of `FREE`.

    Raises:
        UserError: a placement alone, where nothing says how many.
    """
    if marks is None and fraction is None:
        if placement is not None:
            raise UserError(f"--placement={placement}: expected --meta_fraction beside it, as the checkpoint has none")
        return None, "does not say where meta-tokens stood: the prompt gets none; --meta_fraction gives it some"
    marks = marks or Marks(0.0, "random")
    if fraction is None and placement is None:
        if marks.placement == NONE or (marks.fraction == 0 and marks.placement != "fixed"):
            return None, ""
        if marks.placement in OWN:
            return InjectionRule(fraction=marks.fraction, placement=marks.placement, options=marks.options), ""
        if marks.placement not in FREE:
            return None, (
                f"has data.meta_placement={marks.placement}, which no other prompt can follow: this one is left as it "
                "is written; <|meta|> in it, or --placement, gives it meta-tokens"
            )
    usual = marks.placement if marks.placement in FREE else "random"
    share = marks.fraction if fraction is None else fraction
    return InjectionRule(fraction=share, placement=placement or usual), ""


def marks_of(checkpoint: Mapping[str, Any], path: Path, source: str) -> Marks | None:
    """The marks that a checkpoint was trained with; None: nothing says.

    Raises:
        UserError: what says it is no share and no placement.
    """
    if KEY in checkpoint:
        return _checked(checkpoint[KEY], f"{source}: {KEY}")
    state = checkpoint.get("callbacks", {}).get("RunState")
    kept = state.get("config") if isinstance(state, Mapping) else None
    if isinstance(kept, Mapping) and "data.meta_fraction" in kept:
        names = {"fraction": "data.meta_fraction", "placement": "data.meta_placement"}
        found = {name: kept.get(key) for name, key in names.items()}
        inside = "data.meta_placement_options"
        found["options"] = kept.get(inside) or {
            key.removeprefix(f"{inside}."): value for key, value in kept.items() if key.startswith(f"{inside}.")
        }
        return _checked(found, f"{source}: RunState")
    beside = path.resolve().parent.parent / CONFIG
    if beside.is_file():
        data = followed(read_config(str(beside))).get("data")
        if isinstance(data, Mapping) and "meta_fraction" in data:
            found = {name: data.get(f"meta_{name}") for name in ("fraction", "placement")}
            found["options"] = data.get("meta_placement_options")
            return _checked(found, f"{beside}: data")
    return None


def _checked(found: Any, source: str) -> Marks:
    held: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    fraction, placement = held.get("fraction"), held.get("placement")
    is_number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    share = float(fraction) if is_number else -1.0  # type: ignore[arg-type]
    if not 0 <= share <= 0.5 or not isinstance(placement, str):
        raise UserError(f"{source} holds {found!r}; expected a share of meta-tokens from 0 to 0.5 and their placement")
    options = held.get("options")
    return Marks(share, placement, dict(options) if isinstance(options, Mapping) else {})
