"""The shape of a `MetaTransformer`: every choice in one frozen dataclass, checked when it is made.

The field docstrings are the command line's help. Defaults follow nanoGPT, the base of "Learned Meta-Tokens
for Language Modeling" (arXiv 2509.16278), with rotary positions as in its main model; the switches `norm`,
`drop_positions` and the options of the mechanism `meta` exist because the paper leaves these points open.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from lightning_metatok.errors import UserError
from lightning_metatok.model import mechanisms, positions, recurrences
from lightning_metatok.model.attention import backends, patterns
from lightning_metatok.model.axis import Axis
from lightning_metatok.model.branch import EVERYWHERE, SELF_ATTENTION
from lightning_metatok.model.checks import check_backend, expect, one_of
from lightning_metatok.model.extra_position import ExtraPosition

Activation = Literal["gelu", "gelu_tanh", "relu", "swiglu"]
Denominator = Literal["sum", "one", "sink"]
Gate = Literal["none", "head", "element"]
DropAt = Literal["extra", "text", "all"]
DROP_NOWHERE = "none"
FEATURES = {"cache": "generate with a key-value cache", "compile": "be compiled", "documents": "pack documents"}
FEATURES |= {"ahead": "see later tokens", "probes": "be recorded or changed inside"}
"""What not every class of an axis can do."""


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

    kinds_from: int | None = None
    """The first of the ids that further kinds of meta-tokens have (`data.meta_kinds`), up to the last of `vocab_size`:
    their rows are drawn apart, so that all others begin as they do with one kind. Follows data.meta_kinds where
    vocab_size follows data.vocab_size; null: there are none, or the vocabulary has room for them."""

    max_positions: int = 1024
    """Longest sequence trained on, meta-tokens included; also the size of a learned position table. Arms that are
    compared need the same: ${with_marks:${data.block_size}} has room for the blocks of all of them."""

    position: str = "rotary"
    """Positional encoding: a name in `lightning_metatok.model.positions.FAMILIES`, or a class by its dotted path."""

    position_options: dict[str, Any] = field(default_factory=dict)
    """Options of the positional encoding, such as rotary's base; its file lists them with their defaults."""

    pattern: str = "causal"
    """What self-attention may see: a name in `lightning_metatok.model.attention.patterns.PATTERNS`, or a class by its
    dotted path."""

    pattern_options: dict[str, Any] = field(default_factory=dict)
    """Options of the pattern; its file lists them with their defaults."""

    mechanism: str = "meta"
    """What meta-tokens do in a block: a name in `lightning_metatok.model.mechanisms.MECHANISMS`, or a class by its
    dotted path."""

    mechanism_options: dict[str, Any] = field(default_factory=dict)
    """Options of the mechanism, such as the layers of meta-attention; its file lists them with their defaults."""

    recurrence: str = "none"
    """Whether a row is read in segments with memory between: none, rmt, or a class by its dotted path."""

    recurrence_options: dict[str, Any] = field(default_factory=dict)
    """Options of the recurrence, such as a segment's length; its class lists them with their defaults."""

    separators: list[str] = field(default_factory=list)
    """Ends of text, such as [".", "\\n"]: tokens that end so are extra tokens to pattern and mechanism, as meta-tokens
    are, and are read and scored as all text is (SepLLM)."""

    bias: bool = False
    """Biases in the linear layers and layer norms (GPT-2 has them, nanoGPT's default does not)."""

    denominator: Denominator = "sum"
    """What an attention's exponentials are divided by: their sum; one, 1 more (softmax1); or sink, exp(b) more, b
    learned a head (gpt-oss). With the last two a token need not give its weight to any other."""

    gate: Gate = "none"
    """Attention's output times sigmoid(W x), x its input: one number a head, or one an element (arXiv 2505.06708)."""

    d_ff: int | None = None
    """Inner width of the MLP; 4 * d_model when not given."""

    activation: Activation = "gelu"
    """Activation of the MLP; gelu_tanh is the approximation that GPT-2 uses. swiglu is silu(g) * u of two halves of a
    projection twice as wide, as in Llama: half as much d_ff again as without has as many weights."""

    dropout: float = 0.0
    """Dropout probability of embeddings, attention weights and residual branches."""

    tied_head: bool = True
    """The output head reuses the token embedding."""

    norm: Literal["pre", "post"] = "pre"
    """Layer norm before each branch, x + f(LN(x)), or after the sum, LN(x + f(x))."""

    norm_type: Literal["layer", "rms"] = "layer"
    """What norms are: layer norm, or RMS norm without a mean and biases, as in Llama."""

    norm_eps: float = 1e-5
    """What norms add to the variance."""

    n_kv_heads: int | None = None
    """Heads of keys and values, each shared by n_heads / n_kv_heads heads of queries; n_heads when not given."""

    qkv_bias: bool | None = None
    """Biases of queries, keys and values; as `bias` when not given."""

    parallel: bool = False
    """All branches of a block read what entered it, x + f(LN1(x)) + g(LN2(x)), as in GPT-NeoX; else one after the
    other."""

    shared_layers: bool = False
    """All layers share one block's weights, those of the positional encoding included (Universal Transformer)."""

    init_std: float = 0.02
    """Standard deviation of the weights at the start, nanoGPT's by default; a branch's last layer has it divided by
    sqrt(2 n_layers). At small widths a larger one can learn to recall much sooner."""

    drop_positions: str = "none"
    """Where the positions of meta-tokens are dropped, in training too: none, self_attention, both, or the name of a
    branch that the mechanism adds, such as meta_attention. An absolute embedding feeds all of them, so only "both"
    drops it."""

    drop_at: DropAt = "extra"
    """Which tokens lose their positions where `drop_positions` says: extra, the meta-tokens; text, all others; or all,
    which is DroPE (arXiv 2512.12167)."""

    drop_from: int | None = None
    """The training step, from 0, from which on positions are dropped: before it a model learns with them, after it it
    is recalibrated without. From the first step when not given."""

    extra_position: ExtraPosition = "own"
    """Which position a meta-token has: its own, as any token (text behind it is one further), that of the last text
    token before it, or that of the next one; with the last two text is counted as if there were none."""

    base: str | None = None
    """A causal language model of Hugging Face, its folder or name, that gets meta-tokens and a mechanism; its sizes are
    taken from it. Needs the extra hf."""

    base_weights: Literal["frozen", "lora", "all"] = "frozen"
    """What is trained of `base`: nothing, low-rank updates of its linear layers (extra lora), or all of it. What is
    added to it is always trained."""

    lora_rank: int = 8
    """Rank of these updates."""

    activation_checkpointing: bool = False
    """Keep the input of each block alone in training, and compute the block again in the backward pass: memory of one
    block in place of all, for about a third more time."""

    attention_backend: str = "auto"
    """How attention is computed: auto, or a name in `lightning_metatok.model.attention.backends.BACKENDS`."""

    def __post_init__(self) -> None:
        for key in ("n_layers", "n_heads", "d_model", "vocab_size", "max_positions", "d_ff"):
            value = getattr(self, key)
            optional = key == "d_ff" and value is None
            expect(optional or (isinstance(value, int) and value > 0), key, value, "a positive integer")
        first = self.kinds_from
        within = first is None or (isinstance(first, int) and 0 < first < self.vocab_size)
        expect(within, "kinds_from", first, f"an id below vocab_size={self.vocab_size}")
        positions.AXIS.check(self.position, self.position_options)
        patterns.AXIS.check(self.pattern, self.pattern_options)
        mechanisms.AXIS.check(self.mechanism, self.mechanism_options)
        recurrences.AXIS.check(self.recurrence, self.recurrence_options)
        texts = all(isinstance(text, str) and text for text in self.separators)
        expect(texts, "separators", self.separators, "a list of texts, none of them empty")
        one_of("activation", self.activation, get_args(Activation))
        one_of("norm", self.norm, ("pre", "post"))
        one_of("denominator", self.denominator, get_args(Denominator))
        one_of("gate", self.gate, get_args(Gate))
        one_of("attention_backend", self.attention_backend, ("auto", *backends.BACKENDS))
        divides = self.d_model % self.n_heads == 0
        expect(divides, "n_heads", self.n_heads, f"a divisor of d_model={self.d_model}")
        one_of("base_weights", self.base_weights, ("frozen", "lora", "all"))
        expect(self.base is not None or self.base_weights == "frozen", "base_weights", self.base_weights, "model.base")
        expect(self.lora_rank > 0, "lora_rank", self.lora_rank, "a positive integer")
        one_of("norm_type", self.norm_type, ("layer", "rms"))
        expect(self.norm_eps > 0, "norm_eps", self.norm_eps, "a number above 0")
        kv = self.n_kv_heads
        shared = kv is None or (isinstance(kv, int) and kv > 0 and self.n_heads % kv == 0)
        expect(shared, "n_kv_heads", kv, f"a divisor of n_heads={self.n_heads}")
        expect(not self.parallel or self.norm == "pre", "parallel", self.parallel, "false with model.norm='post'")
        expect(
            not (self.family.needs_even_head_dim and self.head_dim % 2),
            "d_model",
            self.d_model,
            f"an even d_model / n_heads for position={self.position!r}, not {self.head_dim}",
        )
        expect(0 <= self.dropout < 1, "dropout", self.dropout, "a number in [0, 1)")
        expect(math.isfinite(self.init_std) and self.init_std > 0, "init_std", self.init_std, "a number above 0")
        for layer in range(self.n_layers):  # what a pattern says of layers must fit as many as there are
            self.built_pattern.at(layer, self.n_layers)
        one_of("drop_at", self.drop_at, get_args(DropAt))
        expect(
            self.drop_at == "extra" or not self.family.embeds,
            "drop_at",
            self.drop_at,
            f"'extra' with model.position={self.position!r}, which has no positions but those in its embedding",
        )
        some = self.drop_from is None or (isinstance(self.drop_from, int) and self.drop_from >= 0)
        expect(some, "drop_from", self.drop_from, "a step, 0 or more")
        drops = self.drop_positions != DROP_NOWHERE
        expect(drops or self.drop_from is None, "drop_from", self.drop_from, "model.drop_positions to say where")
        expect(drops or self.drop_at == "extra", "drop_at", self.drop_at, "model.drop_positions to say where")
        one_of("extra_position", self.extra_position, get_args(ExtraPosition))
        expect(
            self.extra_position == "own" or not self.family.needs_task_ids,
            "extra_position",
            self.extra_position,
            f"'own' with model.position={self.position!r}, whose ids come from a task",
        )
        check_backend(self)
        if not self.built_pattern.causal:
            back = self.family.transforms(self.position_options)
            expected = (
                f"one that does not transform scores with model.pattern={self.pattern!r}, which sees later tokens"
            )
            expect(not back, "position", self.position, expected)
            self.check_can("ahead")
        looked_at = self.built_pattern.needs_mask or not self.built_mechanism.idle
        expected = f"none with model.pattern={self.pattern!r} and no mechanism, as nothing looks for them"
        expect(looked_at or not self.separators, "separators", self.separators, expected)
        self.built_mechanism.check(self)
        self.built_recurrence.check(self)
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
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def n_attention_weights(self) -> int:
        """Weights of the matrices of one attention: q, k, v, output and gate."""
        return self.d_model * (2 * (self.d_model + self.kv_heads * self.head_dim) + self.gate_width)

    @property
    def gate_width(self) -> int:
        """Numbers that gate the output of one attention at a token."""
        return {"none": 0, "head": self.n_heads, "element": self.d_model}[self.gate]

    @property
    def n_block_weights(self) -> int:
        """Weights of the matrices of a plain block."""
        return self.n_attention_weights + (3 if self.activation == "swiglu" else 2) * self.d_model * self.mlp_dim

    @property
    def n_blocks(self) -> int:
        """Blocks with weights of their own."""
        return 1 if self.shared_layers else self.n_layers

    @cached_property
    def built_mechanism(self) -> mechanisms.Mechanism:
        """The mechanism with its options."""
        return mechanisms.build(self.mechanism, **self.mechanism_options)

    @cached_property
    def built_pattern(self) -> patterns.Pattern:
        """The pattern with its options."""
        return patterns.build(self.pattern, **self.pattern_options)

    @cached_property
    def built_recurrence(self) -> recurrences.Recurrence:
        """The recurrence with its options."""
        return recurrences.build(self.recurrence, **self.recurrence_options)

    def added(self, layer: int) -> tuple[str, ...]:
        """Names of the branches that the mechanism adds to block `layer`."""
        return self.built_mechanism.names(layer)

    @property
    def family(self) -> type[positions.PositionEncoding]:
        """The class of its positional encoding."""
        return positions.AXIS.find(self.position)

    def check_can(self, feature: str) -> None:
        """Raise `UserError` when what stands on an axis says that it cannot do `feature`.

        Args:
            feature: a key of `FEATURES`; what a class has in `cannot`, or an object for its options, it cannot do.
        """
        axes: tuple[Axis[Any], ...] = (positions.AXIS, patterns.AXIS, mechanisms.AXIS, recurrences.AXIS)
        for axis in axes:
            name = getattr(self, axis.key)
            kind = getattr(self, f"built_{axis.key}", axis.find(name))
            if feature in (cannot := kind.cannot):
                others = [other for other, kind in axis.known.items() if feature not in kind.cannot]
                raise UserError(
                    f"model.{axis.key}={name!r} cannot {FEATURES[feature]}: {cannot[feature]}; "
                    f"expected one of {', '.join(others)}"
                )

    def check_causal(self, key: str = "") -> None:
        """Raise `UserError`, which begins with `key`, when a token sees what stands behind it and so knows the next."""
        self.check_writes(key)
        if self.built_pattern.prompts:
            raise UserError(
                f"{key}model.pattern={self.pattern!r} cannot predict the next token within a prompt, whose tokens see "
                "all of it; expected a causal pattern, or data.task, whose answers alone are scored"
            )

    def check_writes(self, key: str = "") -> None:
        """Raise `UserError`, which begins with `key`, when it cannot predict the next token behind a prompt either."""
        if not (self.built_pattern.causal or self.built_pattern.prompts):
            raise UserError(
                f"{key}model.pattern={self.pattern!r} cannot predict the next token: a token sees what stands behind "
                "it; expected a causal pattern"
            )

    def check_drop_positions(self, choice: str) -> None:
        """Raise `UserError` when `choice` is no way to drop positions, or would silently drop nothing."""
        added = dict.fromkeys(name for layer in range(self.n_layers) for name in self.added(layer))
        # Models are compared on one choice, so the branch of the mechanism by default may be named without it, too.
        one_of(
            "drop_positions",
            choice,
            tuple(dict.fromkeys((DROP_NOWHERE, SELF_ATTENTION.name, "meta_attention", *added, EVERYWHERE))),
        )
        family = self.family
        only_embeds = family.embeds and not (family.rotates or family.transforms(self.position_options))
        expect(
            not (only_embeds and choice not in (DROP_NOWHERE, EVERYWHERE)),
            "drop_positions",
            choice,
            f"{DROP_NOWHERE!r} or {EVERYWHERE!r}, because position={self.position!r} is added before all branches",
        )
