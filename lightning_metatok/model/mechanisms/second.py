"""What meta-attention and its matched control have in common: a second attention behind the first, in some blocks.

    x = x + Attention(LN(x))          every token
    x = x + SecondAttention(LN(x))    where the subclass says
    x = x + MLP(LN(x))                every token

Both call it `meta_attention`, in the names of their weights too: a checkpoint of one has the parameters of the other.
"""

from typing import TYPE_CHECKING, ClassVar

from torch import nn

from lightning_metatok.model.attention.annealed import AnnealedProjections
from lightning_metatok.model.attention.layers import Attention
from lightning_metatok.model.branch import Branch
from lightning_metatok.model.mechanisms.base import Mechanism, check_layers, refuse, said_layers

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig

SECOND = Branch("meta_attention", "meta_attention", "norm_meta", "meta-attention")


class SecondAttention(Mechanism):
    """A second attention; subclasses say what it may see, and which kind of layer computes it."""

    free_when_new: ClassVar[frozenset[str]] = frozenset({"layers"})
    dense: bool
    """Whether all rows go through it."""

    def __init__(self, layers: list[int] | None, shared: bool, anneal: list[int] | None = None) -> None:
        self.layers = layers
        self.shared = shared
        self.anneal = anneal

    @property
    def idle(self) -> bool:
        return self.layers == []

    @property
    def follows_steps(self) -> bool:
        return self.anneal is not None

    def says(self) -> list[str]:
        annealed = [] if self.anneal is None else [f"anneal {self.anneal[0]} {self.anneal[1]}"]
        return [*(["shared"] if self.shared else []), *annealed, *said_layers(self.layers)]

    def check(self, config: "TransformerConfig") -> None:
        check_layers(self.layers, config)
        if self.shared and self.anneal is not None:
            raise refuse("anneal", self.anneal, "no value with shared=True, which has no weights to mix out")

    def names(self, layer: int) -> tuple[str, ...]:
        return (SECOND.name,) if self.layers is None or layer in self.layers else ()

    def branches(self, config: "TransformerConfig", layer: int, attention: Attention) -> list[tuple[Branch, nn.Module]]:
        if not self.names(layer):
            return []
        if self.anneal is not None:
            mixed = AnnealedProjections(config, attention.weights, self.anneal)
            return [(SECOND, self.kind()(config, layer=layer, projections=mixed))]
        return [(SECOND, self.kind()(config, layer=layer, lender=attention if self.shared else None))]

    def kind(self) -> type[Attention]:
        """The layer that computes it."""
        return Attention

    def share(self, extra_share: float) -> float:
        return 1.0 if self.dense else extra_share

    def flops_per_token(self, config: "TransformerConfig", n: int, extra_share: float) -> float:
        """f (6 L' 4 D^2 + 6 L' D (f n + 1)): L' blocks have it, and f of all rows go through it. Weights that are
        mixed count twice."""
        f = self.share(extra_share)
        used = 1 if self.anneal is None else 2
        second = sum(bool(self.names(layer)) for layer in range(config.n_layers))
        return f * second * (6 * used * config.n_attention_weights + 6 * config.d_model * (f * n + 1))
