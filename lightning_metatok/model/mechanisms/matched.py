"""The matched control: the parameters of meta-attention, spent on a second attention of all tokens.

It may see what self-attention may see, as the pattern says. layers and shared are those of `meta`.
"""

from lightning_metatok.model.attention.patterns import Pattern
from lightning_metatok.model.attention.plan import Forward, Plans
from lightning_metatok.model.mechanisms.second import SECOND, SecondAttention


class MatchedAttention(SecondAttention):
    """A second attention of all tokens."""

    dense = True

    def __init__(self, *, layers: list[int] | None = None, shared: bool = False) -> None:
        super().__init__(layers, shared)

    def rules(self, layer: int, pattern: Pattern) -> tuple[Pattern, ...]:
        return (pattern,) if self.names(layer) else ()

    def plans(self, forward: Forward) -> Plans:
        return {SECOND.name: forward.over_all(SECOND.name, forward.seen)}
