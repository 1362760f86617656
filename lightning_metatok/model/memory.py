"""What generation keeps of earlier tokens: bounded memory for any checkpoint.

    rule            a token sees, and so what is kept                      rows kept of n tokens, m of them extra
    auto            what the model's pattern lets it see                   what the pattern needs: n where it is causal
    all             the same; nothing is forgotten                         n
    window          the last w tokens                                      w
    extra           itself and the extra tokens                            m
    window+extra    the last w tokens and the extra tokens                 w + m
    sinks+window    the first s tokens and the last w                      s + w
    (StreamingLLM: Xiao et al. 2023, arXiv 2309.17453)

`auto` and `all` give what the model gives without a cache, and `auto` in bounded memory where the pattern is bounded.
The others take context away from a model that was trained with it: they ask what it can do without. They hold for every
attention of every layer and for the prompt as well, so that the row of a token does not depend on where the prompt
ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from torch import Tensor

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import Causal, Pattern, Sinks, Window, WindowMeta
from lightning_metatok.model.cache import PAGE, Keeps, KVCache

if TYPE_CHECKING:
    from lightning_metatok.model.transformer import MetaTransformer

OPTIONS: Mapping[str, frozenset[str]] = {
    "auto": frozenset(),
    "all": frozenset(),
    "window": frozenset({"window"}),
    "extra": frozenset(),
    "window+extra": frozenset({"window"}),
    "sinks+window": frozenset({"window", "sinks"}),
}
"""The rules, and which options each has."""
WINDOW, SINKS = 256, 4


@dataclass(frozen=True)
class Memory:
    """A rule.

    Attributes:
        name: of the rule, as above.
        window: w; None: 256 where the rule has one.
        sinks: s; None: 4 where the rule has some.

    Raises:
        UserError: there is no such rule, a number is below 1, or the rule has no such option.
    """

    name: str = "auto"
    window: int | None = None
    sinks: int | None = None

    def __post_init__(self) -> None:
        if self.name not in OPTIONS:
            raise UserError(
                f"memory={self.name!r}: expected one of {', '.join(OPTIONS)}{nearest(self.name, list(OPTIONS))}"
            )
        for option, value in (("window", self.window), ("sinks", self.sinks)):
            if value is not None and option not in OPTIONS[self.name]:
                having = ", ".join(name for name, options in OPTIONS.items() if option in options)
                raise UserError(f"memory_{option}={value}: memory={self.name!r} has none; expected with {having}")
            if value is not None and value < 1:
                raise UserError(f"memory_{option}={value}: expected 1 or more tokens")

    @property
    def rule(self) -> Pattern | None:
        """What tokens see, beside what the pattern says; None: all."""
        w = WINDOW if self.window is None else self.window
        n = SINKS if self.sinks is None else self.sinks
        rules: dict[str, Pattern] = {
            "window": Window(w=w),
            "extra": WindowMeta(w=1),
            "window+extra": WindowMeta(w=w),
            "sinks+window": Causal() & (Sinks(n=n) | Window(w=w)),
        }
        return rules.get(self.name)


def cache_of(
    model: "MetaTransformer", memory: Memory | None = None, padding_B: Tensor | None = None, *, page: int = PAGE
) -> KVCache:
    """Return an empty cache that keeps what `memory` says.

    Args:
        model: whose memory it is.
        memory: None: `auto`.
        padding_B: tokens before each prompt that are none; None: there are none.
        page: rows that buffers grow by.

    Raises:
        UserError: the model needs the tokens that the rule forgets.
    """
    memory = Memory() if memory is None else memory
    n_layers, rule = model.config.n_layers, memory.rule
    why = needs_all_keys(model)
    if rule is not None and why is not None:
        raise UserError(f"memory={memory.name!r}: {why}; expected auto or all")
    if memory.name == "all" or why is not None:
        return KVCache(n_layers, padding_B=padding_B, page=page)
    layers = list(dict.fromkeys(model.pattern.at(layer, n_layers) for layer in range(n_layers)))
    return KVCache(n_layers, rule=rule, keeps=_keeps(layers, rule, model), padding_B=padding_B, page=page)


def needs_all_keys(model: "MetaTransformer") -> str | None:
    """Why a rule may not say which earlier tokens are forgotten, as a clause; None: it may."""
    config = model.config
    if config.base is not None:
        return f"model.base={config.base!r} has a cache of its own, which keeps all"
    if (kept := config.built_recurrence.keeps) is not None:
        return f"model.recurrence={config.recurrence!r} keeps {kept}"
    for axis, part in (("position", model.positions), ("mechanism", model.mechanism)):
        if part.needs_all_keys:
            return f"model.{axis}={getattr(config, axis)!r} looks at keys beside those that a token sees"
    return None


def _keeps(layers: list[Pattern], rule: Pattern | None, model: "MetaTransformer") -> Keeps:
    """What some layer may still need. Extra tokens, too, where a branch of the mechanism reaches all of them."""
    among_extra = any(model.config.added(layer) for layer in range(model.config.n_layers))

    def keeps(facts: Facts) -> Tensor:
        kept_BK = reduce(or_, (pattern.lasts(facts) for pattern in layers))
        if among_extra:
            kept_BK = kept_BK | facts.is_extra_BK
        return kept_BK if rule is None else kept_BK & rule.lasts(facts)

    return keeps
