"""The one interface of all mechanisms: what extra tokens DO in a block.

    attention(config, layer)             self-attention itself, where extra tokens are something else to it
    branches(config, layer, attention)   the branches that it adds between self-attention and the MLP, and their modules
    plans(forward)                       what these branches work on and may see in a forward pass
    opened(forward)                      what self-attention may look at where that is more than the pattern
    transform(forward)                   what it does to self-attention's scores, behind the positional encoding
    between(config)                      a module that acts between blocks, with the states behind all earlier ones
    share, flops_per_token               what it costs

A mechanism overrides the hooks that it needs. It is built from its options alone, knows nothing of weights, and states
what it cannot do together with another axis in `check`. Its branches' names are what everything else is keyed by:
plans, memories of generation, recordings, interventions, dropped positions, and weights that start fresh.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

from lightning_metatok.errors import UserError
from lightning_metatok.model.attention.layers import Attention
from lightning_metatok.model.attention.patterns import Pattern
from lightning_metatok.model.attention.plan import Forward, Plans, Transform
from lightning_metatok.model.attention.sight import Sight
from lightning_metatok.model.branch import Branch
from lightning_metatok.model.cache import Memories

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig


class Between(nn.Module):
    """Acts behind each block; its weights are the model's, under ``between``."""

    def forward(
        self,
        states: Sequence[Tensor],
        layer: int,
        plans: Plans,
        memories: Memories | None = None,
    ) -> Tensor:
        """Return what enters the next block.

        Args:
            states: [B, T, D] each, as they entered the first block and behind all blocks so far.
            layer: the block that is done, from 0. plans: of all its branches. memories: of this layer, in generation;
                under a branch of its own it keeps there what it must know of earlier tokens.
        """
        raise NotImplementedError


class Mechanism:
    """A mechanism that does nothing; it takes its options as keyword-only arguments (`model.axis`)."""

    transforms_scores: ClassVar[bool] = False
    """Whether `transform` returns something."""

    needs_all_keys: bool = False
    """Whether it looks at keys that a token does not see, so that none may be forgotten in generation."""

    free_after_training: ClassVar[frozenset[str]] = frozenset()
    """Options that a trained checkpoint may be read with other values of."""

    free_when_new: ClassVar[frozenset[str]] = frozenset()
    """Options that may differ where `model.init_new` names `layers`: which of them exist, not what they are."""

    cannot: ClassVar[Mapping[str, str]] = {}
    """What it cannot do (`config.FEATURES`), and why, as a clause."""

    parts_of_attention: ClassVar[Mapping[str, str]] = {}
    """Modules and buffers of self-attention that are its own, and what they are called."""

    @property
    def follows_steps(self) -> bool:
        """Whether it changes from step to step of training by itself (`MetaTransformer.at_step`)."""
        return False

    @property
    def idle(self) -> bool:
        """Whether it does nothing with these options, so that extra tokens are ordinary ones."""
        return True

    def says(self) -> list[str]:
        """What a short name of an arm must say of its options, a few words each."""
        return []

    def check(self, config: "TransformerConfig") -> None:
        """Raise `UserError` when it cannot work in such a model; the message names both sides."""

    def names(self, layer: int) -> tuple[str, ...]:
        """Names of the branches that it adds to block `layer`."""
        return ()

    def rules(self, layer: int, pattern: Pattern) -> tuple[Pattern, ...]:
        """Return what its branches let see in a layer whose self-attention has the rule `pattern`, one a branch."""
        return ()

    def attention(self, config: "TransformerConfig", layer: int) -> Attention:
        """Return the self-attention of block `layer`."""
        return Attention(config, layer=layer)

    def branches(self, config: "TransformerConfig", layer: int, attention: Attention) -> list[tuple[Branch, nn.Module]]:
        """Return the branches that it adds to block `layer`, and their modules; `attention` is the block's own."""
        return []

    def plans(self, forward: Forward) -> Plans:
        """Return a plan for each of its branches; None: there is nothing to work on in this pass."""
        return {}

    def opened(self, forward: Forward) -> Sight | None:
        """Return what self-attention may look at, before `transform` narrows it; here what the pattern lets see."""
        return forward.seen

    def transform(self, forward: Forward) -> Transform | None:
        """Return what it does to the scores of self-attention, which have their positions in them but no mask."""
        return None

    def longest(self, config: "TransformerConfig") -> int | None:
        """Positions of the longest row that its weights have room for; None: of any."""
        return None

    def between(self, config: "TransformerConfig") -> Between | None:
        """Return the module that acts between blocks, or None."""
        return None

    def share(self, extra_share: float) -> float:
        """The share of all rows that its branches work on, where `extra_share` of them are extra tokens."""
        return extra_share

    def flops_per_token(self, config: "TransformerConfig", n: int, extra_share: float) -> float:
        """Training FLOPs a position, over all layers, beside those of a plain model; n: length of a sequence."""
        return 0.0


def refuse(key: str, value: object, expected: str) -> UserError:
    """Return the error that an option's value calls for."""
    return UserError(f"model.mechanism_options.{key}={value!r}: expected {expected}")


def check_layers(layers: list[int] | None, config: "TransformerConfig") -> None:
    """Raise `UserError` unless an option `layers` names some blocks, or is not given."""
    if layers is None:
        return
    if not (set(layers) <= set(range(config.n_layers)) and len(set(layers)) == len(layers)):
        raise refuse("layers", layers, f"different block numbers from 0 to {config.n_layers - 1}")
    if config.shared_layers:
        raise refuse("layers", layers, "no value with model.shared_layers=True, where all blocks are one")


def said_layers(layers: list[int] | None) -> list[str]:
    """Return what `Mechanism.says` has of such an option."""
    return [] if layers is None else [f"layers {' '.join(map(str, sorted(layers)))}"]
