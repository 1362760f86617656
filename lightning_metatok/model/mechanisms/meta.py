"""Meta-attention: extra tokens attend among themselves, behind self-attention (arXiv 2509.16278, section 3).

layers  blocks that have it, counted from 0; all of them when not given
shared  it uses the q, k, v and output weights of its block's self-attention
anneal  [first, last]: between these steps its q, k, v and output weights are mixed out towards those of its block's
        self-attention, as KSA does with its summaries' (arXiv 2604.24432): what is left is `shared`
fill    not given: rows of ordinary tokens get exactly zero from it. A negative number: the additive mask holds that
        number instead of -inf, so ordinary rows fall back to attention over all earlier tokens (dense, slow; the other
        reading of the paper's equation)

The pattern says what self-attention may see; meta-attention reaches all earlier extra tokens of the document whatever
it is. Switches, because the paper leaves these points open.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from lightning_metatok.errors import UserError
from lightning_metatok.model.attention import backends, masks
from lightning_metatok.model.attention.annealed import STEPS
from lightning_metatok.model.attention.layers import Attention, GatheredAttention
from lightning_metatok.model.attention.patterns import Causal, MetaToMeta, Pattern
from lightning_metatok.model.attention.plan import Forward, Plans
from lightning_metatok.model.mechanisms.second import SECOND, SecondAttention
from lightning_metatok.options import Rule

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig

FILL = Rule("a finite negative number", lambda value: math.isfinite(value) and value < 0)


AMONG_EXTRA, ALL = Causal() & MetaToMeta(), Causal()
"""What it lets see: without `fill`, and with."""


class MetaAttention(SecondAttention):
    """A second attention among extra tokens."""

    cannot: ClassVar[Mapping[str, str]] = {"ahead": "meta-attention is causal among meta-tokens"}
    free_after_training: ClassVar[frozenset[str]] = frozenset({"fill"})

    def __init__(
        self,
        *,
        layers: list[int] | None = None,
        shared: bool = False,
        fill: Annotated[float | None, FILL] = None,
        anneal: Annotated[list[int] | None, STEPS] = None,
    ) -> None:
        super().__init__(layers, shared, anneal)
        self.fill = fill
        self.dense = self.needs_all_keys = fill is not None

    def says(self) -> list[str]:
        return [*([] if self.fill is None else [f"fill {self.fill:g}"]), *super().says()]

    def check(self, config: "TransformerConfig") -> None:
        super().check(config)
        if self.fill is not None and config.attention_backend not in ("auto", *backends.for_masks()):
            raise UserError(
                f"model.attention_backend={config.attention_backend!r}: expected one of auto, "
                f"{', '.join(backends.for_masks())}, because model.mechanism_options.fill={self.fill!r} needs a mask"
            )

    def kind(self) -> type[Attention]:
        return Attention if self.dense else GatheredAttention

    def rules(self, layer: int, pattern: Pattern) -> tuple[Pattern, ...]:
        return (AMONG_EXTRA if self.fill is None else ALL,) if self.names(layer) else ()

    def plans(self, forward: Forward) -> Plans:
        if self.fill is None:
            return {SECOND.name: forward.over_extra(SECOND.name)}
        seen = forward.within_documents(Causal()).mask(forward.facts, forward.queries).unsqueeze(1)
        soft = MetaToMeta().mask(forward.facts, forward.queries).unsqueeze(1)
        return {
            SECOND.name: forward.over_all(SECOND.name, None, table=masks.additive(seen, soft, self.fill, forward.dtype))
        }
