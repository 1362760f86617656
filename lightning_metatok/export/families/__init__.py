"""Shapes that transformers has itself: one family a file, one interface for all (`base.Family`)."""

from lightning_metatok.export.families.base import Family
from lightning_metatok.export.families.gpt2 import GPT2
from lightning_metatok.export.families.gpt_neox import GPTNeoX
from lightning_metatok.export.families.llama import Llama, Mistral, Qwen2
from lightning_metatok.model import TransformerConfig

FAMILIES: dict[str, Family] = {family.name: family for family in (GPT2(), GPTNeoX(), Llama(), Qwen2(), Mistral())}


def family_of(config: TransformerConfig) -> tuple[Family | None, str]:
    """Return the family that a model of ours is one of; None, and why it is of none.

    The reason is that of the family with its positional encoding, else of the first one.
    """
    reasons = {}
    for family in FAMILIES.values():
        if (reason := family.why_not(config)) is None:
            return family, ""
        reasons[family.name] = reason
    other = [reason for reason in reasons.values() if not reason.startswith("model.position=")]
    return None, (other or [f"model.position={config.position!r} is in none of {', '.join(reasons)}"])[0]


__all__ = ["FAMILIES", "Family", "family_of"]
