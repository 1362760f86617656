"""The shape of a `MetaTransformer`: every choice in one frozen dataclass, checked when it is made.

The field docstrings are the command line's help. Defaults follow nanoGPT, the base of "Learned Meta-Tokens
for Language Modeling" (arXiv 2509.16278), with rotary positions as in its main model; the switches `norm`,
`meta_over`, `meta_layers`, `meta_shared`, `meta_fill` and `drop_positions` exist because the paper leaves
these points open.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.model import positions
from lightning_metatok.model.attention import backends

Activation = Literal["gelu", "gelu_tanh", "relu"]
DropPositions = Literal["none", "self_attention", "meta_attention", "both"]


@dataclass(frozen=True)
class TransformerConfig:
    """Shape and switches of a transformer with meta-attention.

    Raises:
        UserError: a value cannot work; the message names `model.<field>`, the value and what was expected.
    """

    n_layers: int
    """Number of blocks."""

    n_heads: int
    """Number of attention heads; divides d_model."""

    d_model: int
    """Width of the residual stream."""

    vocab_size: int
    """Number of token ids, the meta-token's included."""

    max_positions: int = 1024
    """Longest sequence trained on; also the size of a learned position table."""

    position: str = "rotary"
    """Positional encoding: a name in `lightning_metatok.model.positions.FAMILIES`."""

    position_options: dict[str, Any] = field(default_factory=dict)
    """Options of the positional encoding, such as rotary's base; its file lists them with their defaults."""

    meta_attention: bool = True
    """Add the meta-attention layer after the causal self-attention of each block."""

    bias: bool = False
    """Biases in the linear layers and layer norms (GPT-2 has them, nanoGPT's default does not)."""

    d_ff: int | None = None
    """Inner width of the MLP; 4 * d_model when not given."""

    activation: Activation = "gelu"
    """Activation of the MLP; gelu_tanh is the approximation that GPT-2 uses."""

    dropout: float = 0.0
    """Dropout probability of embeddings, attention weights and residual branches."""

    tied_head: bool = True
    """The output head reuses the token embedding."""

    norm: Literal["pre", "post"] = "pre"
    """Layer norm before each branch, x + f(LN(x)), or after the sum, LN(x + f(x))."""

    meta_over: Literal["meta", "all"] = "meta"
    """Which tokens the second attention sees. "all" is the matched control: same parameters, plain causal."""

    meta_layers: list[int] | None = None
    """Blocks that have meta-attention, counted from 0; all of them when not given."""

    meta_shared: bool = False
    """Meta-attention reuses the q, k, v and output weights of its block's self-attention."""

    meta_fill: float | None = None
    """Not given: rows of ordinary tokens get exactly zero from meta-attention. A negative number: the
    additive mask holds that number instead of -inf, so ordinary rows fall back to attention over all earlier
    tokens (dense, slow; the other reading of the paper's equation)."""

    shared_layers: bool = False
    """All layers share one block's weights, those of the positional encoding included (Universal Transformer)."""

    drop_positions: DropPositions = "none"
    """Where the positions of meta slots are dropped, in training too. An absolute embedding feeds both
    attentions, so only "both" drops it."""

    attention_backend: str = "auto"
    """How attention is computed: auto, or a name in `lightning_metatok.model.attention.backends.BACKENDS`."""

    def __post_init__(self) -> None:
        for key in ("n_layers", "n_heads", "d_model", "vocab_size", "max_positions", "d_ff"):
            value = getattr(self, key)
            optional = key == "d_ff" and value is None
            _expect(optional or (isinstance(value, int) and value > 0), key, value, "a positive integer")
        positions.check_options(self.position, self.position_options)
        _one_of("activation", self.activation, get_args(Activation))
        _one_of("norm", self.norm, ("pre", "post"))
        _one_of("meta_over", self.meta_over, ("meta", "all"))
        _one_of("attention_backend", self.attention_backend, ("auto", *backends.BACKENDS))
        divides = self.d_model % self.n_heads == 0
        _expect(divides, "n_heads", self.n_heads, f"a divisor of d_model={self.d_model}")
        _expect(
            not (self._family.needs_even_head_dim and self.head_dim % 2),
            "d_model",
            self.d_model,
            f"an even d_model / n_heads for position={self.position!r}, not {self.head_dim}",
        )
        _expect(0 <= self.dropout < 1, "dropout", self.dropout, "a number in [0, 1)")
        _expect(
            self.attention_backend in ("auto", *backends.for_scores()) or not self._transforms_scores,
            "attention_backend",
            self.attention_backend,
            f"one of auto, {', '.join(backends.for_scores())}, because position={self.position!r} transforms scores",
        )
        if (layers := self.meta_layers) is not None:
            fits = set(layers) <= set(range(self.n_layers)) and len(set(layers)) == len(layers)
            _expect(fits, "meta_layers", layers, f"different block numbers from 0 to {self.n_layers - 1}")
            _expect(not self.shared_layers, "meta_layers", layers, "no value when shared_layers=True")
        if (fill := self.meta_fill) is not None:
            _expect(math.isfinite(fill) and fill < 0, "meta_fill", fill, "a finite negative number")
            _expect(self.meta_over == "meta", "meta_fill", fill, "no value when meta_over='all'")
        self.check_drop_positions(self.drop_positions)

    @property
    def head_dim(self) -> int:
        """Width of one head, H."""
        return self.d_model // self.n_heads

    @property
    def mlp_dim(self) -> int:
        """Inner width of the MLP."""
        return 4 * self.d_model if self.d_ff is None else self.d_ff

    @property
    def n_blocks(self) -> int:
        """Blocks with weights of their own."""
        return 1 if self.shared_layers else self.n_layers

    def has_meta(self, layer: int) -> bool:
        """Whether block `layer` has a second attention."""
        return self.meta_attention and (self.meta_layers is None or layer in self.meta_layers)

    @property
    def _family(self) -> type[positions.PositionEncoding]:
        return positions.FAMILIES[self.position]

    @property
    def _transforms_scores(self) -> bool:
        return self._family.transforms(self.position_options)

    def check_can(self, feature: str) -> None:
        """Raise `UserError` when the positional encoding cannot do `feature` (`PositionEncoding.cannot`)."""
        if feature in self._family.cannot:
            others = [name for name, family in positions.FAMILIES.items() if feature not in family.cannot]
            what = {"cache": "generate with a key-value cache", "compile": "be compiled", "documents": "pack documents"}
            raise UserError(
                f"model.position={self.position!r} cannot {what[feature]}: {self._family.cannot[feature]}; "
                f"expected one of {', '.join(others)}"
            )

    def check_drop_positions(self, choice: str) -> None:
        """Raise `UserError` when `choice` is no way to drop positions, or would silently drop nothing."""
        _one_of("drop_positions", choice, get_args(DropPositions))
        family = self._family
        only_embeds = family.embeds and not (family.rotates or self._transforms_scores)
        _expect(
            not (only_embeds and choice in ("self_attention", "meta_attention")),
            "drop_positions",
            choice,
            f"'none' or 'both', because position={self.position!r} is added before both attentions",
        )


def _expect(right: bool, key: str, value: Any, expected: str) -> None:
    if not right:
        raise UserError(f"model.{key}={value!r}: expected {expected}")


def _one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    _expect(value in known, key, value, f"one of {', '.join(known)}{nearest(str(value), known)}")
