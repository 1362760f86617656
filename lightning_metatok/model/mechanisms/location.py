"""Location attention: behind self-attention each row looks at a place that moves along the text by learned steps.

    x = x + Attention(LN(x))            every token
    x = x + LocationAttention(LN(x))    every token: step by step along the text, not by what stands there
    x = x + MLP(LN(x))                  every token

step    one_step: from 0 to 1 token a row, sigmoid(5 .); monotonic: 0 or more, relu; stair: whole tokens in either
        direction, with soft edges; free: any number
past    what a step goes on from: centre, where the row before looked; mean: the mean place of its weights, as
        published, which costs a loop over rows
mix     each head mixes attention to a place with attention to content, by a gate; false: to places alone
over    all: places of all tokens up to the row; prompt: those of the prompt alone, for the rows behind it
layers  blocks that have it, counted from 0; all of them when not given

`attention.location` has the equations. With `mix` its weights are those of `matched` and three vectors a head: the
control. Extra tokens are tokens. Published as cross-attention of an encoder-decoder. As a branch of a decoder, where
prompt and answer are one text, steps count from the document's first token, and the prompt's rows move, too (`all`).
With `prompt` it is that cross-attention: a document's first extra token closes its prompt, that token and those behind
it look at places of the prompt from its beginning on, and rows of the prompt have no such heads, nor has a document
without an extra token. With the pattern `prefix_lm` these are an encoder's rows, which sees both directions; the two
share their weights. Not here: the attended value in the next row's step, gates of the past, and a learned mix of two
activations.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import nn

from lightning_metatok.errors import UserError
from lightning_metatok.model.attention.layers import Attention
from lightning_metatok.model.attention.location import LocationAttention, LocationPlan, Past, Step
from lightning_metatok.model.attention.patterns import Causal, Pattern, Prompt
from lightning_metatok.model.attention.plan import Forward, Plans
from lightning_metatok.model.branch import Branch
from lightning_metatok.model.mechanisms.base import Mechanism, check_layers, refuse, said_layers

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig

LOCATION = Branch("location_attention", "location_attention", "norm_location", "location attention")


class Location(Mechanism):
    """Behind self-attention each row looks at a place that moves along the text by learned steps."""

    needs_all_keys = True
    cannot: ClassVar[Mapping[str, str]] = {"ahead": "its places move with the text"}
    free_when_new: ClassVar[frozenset[str]] = frozenset({"layers"})

    def __init__(
        self,
        *,
        step: Step = "one_step",
        past: Past = "centre",
        mix: bool = True,
        over: Literal["all", "prompt"] = "all",
        layers: list[int] | None = None,
    ) -> None:
        self.step: Step = step
        self.past: Past = past
        self.mix, self.over, self.layers = mix, over, layers
        if over == "prompt":  # behind it places are those of the prompt, whoever sees what
            self.cannot = {}  # type: ignore[misc]  # these options' alone

    @property
    def idle(self) -> bool:
        return self.layers == []

    def says(self) -> list[str]:
        past, mix = ["mean"] if self.past == "mean" else [], [] if self.mix else ["places alone"]
        over = [] if self.over == "all" else ["over prompt"]
        return [*([] if self.step == "one_step" else [self.step]), *past, *mix, *over, *said_layers(self.layers)]

    def check(self, config: "TransformerConfig") -> None:
        check_layers(self.layers, config)
        if config.denominator != "sum":
            raise UserError(
                f"model.denominator={config.denominator!r}: expected 'sum' with model.mechanism='location', whose "
                "weights of places sum to 1"
            )
        if self.over == "prompt" and config.norm != "pre":
            expected = f"all with model.norm={config.norm!r}, which would norm rows of the prompt that it leaves alone"
            raise refuse("over", self.over, expected)

    @property
    def rule(self) -> Pattern:
        """What its heads may look at."""
        return Causal() if self.over == "all" else Prompt()

    def names(self, layer: int) -> tuple[str, ...]:
        return (LOCATION.name,) if self.layers is None or layer in self.layers else ()

    def rules(self, layer: int, pattern: Pattern) -> tuple[Pattern, ...]:
        return (self.rule,) if self.names(layer) else ()

    def branches(self, config: "TransformerConfig", layer: int, attention: Attention) -> list[tuple[Branch, nn.Module]]:
        if not self.names(layer):
            return []
        return [(LOCATION, LocationAttention(config, layer=layer, step=self.step, past=self.past, mix=self.mix))]

    def plans(self, forward: Forward) -> Plans:
        seen = forward.over_all(LOCATION.name, forward.sight(self.rule))
        return {LOCATION.name: LocationPlan(**vars(seen), place_BK=forward.facts.in_document_BK)}

    def share(self, extra_share: float) -> float:
        return 1.0

    def flops_per_token(self, config: "TransformerConfig", n: int, extra_share: float) -> float:
        """L' (6 (A + 3 D N) + 12 D K): L' blocks have it, A weights of an attention, K keys that a row sees on average,
        (n + 1) / 2 of all. Places alone need no q and k, and half of the scores and values; distances are
        elementwise."""
        having = sum(bool(self.names(layer)) for layer in range(config.n_layers))
        D, N, K = config.d_model, config.n_heads, self.rule.mean_keys(n, extra_share)
        if self.mix:
            return having * (6 * (config.n_attention_weights + 3 * D * N) + 12 * D * K)
        without = D * (D + config.kv_heads * config.head_dim)
        return having * (6 * (config.n_attention_weights - without + 2 * D * N) + 6 * D * K)
