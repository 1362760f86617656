"""Extra tokens have queries, keys and values of their own inside the one attention, which can be annealed away.

    q = m q_own + (1 - m) q_base        at extra tokens; k and v likewise. All else is shared: output, MLP, norms
    m = 1                               all through, as in Activation Beacon (arXiv 2401.03462), or
    m = 1 -> 0                          linearly between two steps (anneal), as in KSA (arXiv 2604.24432)

layers  blocks that have them, counted from 0; all of them when not given
anneal  [first, last]: m is 1 up to step `first` and 0 from step `last` on. What is trained then is a model
        without these weights: drop them, and nothing changes

Whether meta-attention gains by weights of its own or by a second attention is what this tells apart.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from torch import Tensor, nn

from lightning_metatok.model.attention.annealed import STEPS, Share
from lightning_metatok.model.attention.layers import Attention, AttentionPlan
from lightning_metatok.model.mechanisms.base import Mechanism, check_layers, said_layers

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig


class OwnProjections(Attention):
    """Self-attention in which rows of extra tokens are projected by `own`, too, and mixed."""

    def __init__(self, config: "TransformerConfig", *, layer: int, anneal: list[int] | None) -> None:
        super().__init__(config, layer=layer)
        like = self.weights.qkv
        self.own = nn.Linear(like.in_features, like.out_features, bias=like.bias is not None)
        self.share = None if anneal is None else Share(anneal)

    def project(self, x: Tensor, plan: AttentionPlan) -> tuple[Tensor, Tensor, Tensor]:
        if plan.extra_rows_R is None:
            return super().project(x, plan)
        rows_R = plan.extra_rows_R
        of_all = self.weights.qkv(x).flatten(0, 1)
        own: Tensor = self.own(x.flatten(0, 1).index_select(0, rows_R))
        if self.share is not None:
            own = self.share(of_all.index_select(0, rows_R), own)
        return self.weights.heads(of_all.index_copy(0, rows_R, own).unflatten(0, x.shape[:2]))

    def start_unchanged(self) -> None:
        """Begin with the weights that ordinary tokens have."""
        self.own.load_state_dict(self.weights.qkv.state_dict())


class OwnQKV(Mechanism):
    """Extra tokens have queries, keys and values of their own inside the one attention."""

    parts_of_attention: ClassVar[Mapping[str, str]] = {"own": "own q, k, v", "share": "their share"}
    free_when_new: ClassVar[frozenset[str]] = frozenset({"layers"})

    def __init__(self, *, layers: list[int] | None = None, anneal: Annotated[list[int] | None, STEPS] = None) -> None:
        self.layers, self.anneal = layers, anneal

    @property
    def idle(self) -> bool:
        return self.layers == []

    @property
    def follows_steps(self) -> bool:
        return self.anneal is not None

    def says(self) -> list[str]:
        annealed = [] if self.anneal is None else [f"anneal {self.anneal[0]} {self.anneal[1]}"]
        return [*annealed, *said_layers(self.layers)]

    def check(self, config: "TransformerConfig") -> None:
        check_layers(self.layers, config)

    def _has(self, layer: int) -> bool:
        return self.layers is None or layer in self.layers

    def attention(self, config: "TransformerConfig", layer: int) -> Attention:
        if not self._has(layer):
            return super().attention(config, layer)
        return OwnProjections(config, layer=layer, anneal=self.anneal)

    def flops_per_token(self, config: "TransformerConfig", n: int, extra_share: float) -> float:
        """6 f L' D (D + 2 D'), D' the width of keys: L' blocks have them, f of all rows are extra tokens."""
        having = sum(self._has(layer) for layer in range(config.n_layers))
        rows = (config.n_heads + 2 * config.kv_heads) * config.head_dim
        return 6 * extra_share * having * config.d_model * rows
