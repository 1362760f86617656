"""The one builder of plans: what each branch works on and may see in one forward pass.

pattern        what self-attention may see, in each layer     -> a sight, or none where it is plain causal
documents      tokens of different ones do not see each other -> part of every sight, and of the blocks
positions      rotations, and transforms of scores
mechanism      the plans of its branches, and a transform of scores behind that of the positions
cache          keys are all tokens so far, queries the last of them
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.layers import AttentionPlan, Plan
from lightning_metatok.model.attention.meta import BlockLengths, MetaBlocks, where
from lightning_metatok.model.attention.patterns import Causal, MetaToMeta, Pattern, SameDocument
from lightning_metatok.model.attention.sight import Sight
from lightning_metatok.model.branch import EVERYWHERE, MLP, SELF_ATTENTION
from lightning_metatok.model.cache import KVCache
from lightning_metatok.model.positions import PositionEncoding

if TYPE_CHECKING:
    from lightning_metatok.model.mechanisms import Mechanism

Plans = Mapping[str, Plan | None]
"""By the names of branches; None: the branch has nothing to work on."""
Transform = Callable[..., Tensor]
"""Takes scores [B, N, Q, K], `layer` and `rows`, as `positions.score` does."""


@dataclass(frozen=True)
class Forward:
    """One forward pass, as plans see it.

    Attributes:
        extra_BT: bool, the extra tokens among the queries; None: it has none, and no cache.
        position_ids_BT: of the queries. document_ids_BT: likewise; None: one a sample.
        dropped: where positions are dropped: the name of a branch, or EVERYWHERE. drop_at: those of which tokens.
        dtype: of the model's weights. n_queries: T.
        cache: which has taken up the queries already.
        extra_lengths: extra tokens of each sample and document, where the host knows them.
    """

    positions: PositionEncoding
    pattern: Pattern
    extra_BT: Tensor | None
    position_ids_BT: Tensor
    document_ids_BT: Tensor | None
    dropped: str
    dtype: torch.dtype
    n_queries: int
    cache: KVCache | None = None
    extra_lengths: BlockLengths | None = None
    drop_at: str = "extra"

    @cached_property
    def facts(self) -> Facts:
        """Of the keys; the queries are the last of them."""
        if self.cache is not None and self.cache.facts is not None:
            return self.cache.facts
        device = self.position_ids_BT.device
        return Facts.of(self.n_queries, self.extra_BT, self.document_ids_BT, device=device)

    @property
    def n_keys(self) -> int:
        """Number of tokens that there are to see, K."""
        return self.facts.n

    @property
    def queries(self) -> slice:
        """Which rows of the facts are the queries."""
        return slice(self.n_keys - self.n_queries, self.n_keys)

    @property
    def keys_ids_BK(self) -> Tensor:
        """Positions of the keys."""
        cached = None if self.cache is None else self.cache.position_ids_BK
        return self.position_ids_BT if cached is None else cached

    @cached_property
    def seen(self) -> Sight | None:
        """What the pattern lets see; None where backends need not be told."""
        return self.sight(self.pattern)

    def sight(self, rule: Pattern) -> Sight | None:
        """Return what a rule and the memory let see within documents; None: all keys up to the query's own place."""
        rule = self.within_documents(self.within_memory(rule))
        # One query alone sees all keys there are: they are up to its own place.
        if not rule.needs_mask and (self.n_keys == self.n_queries or self.n_queries == 1):
            return None
        return Sight(rule, self.facts, self.queries)

    def within_documents(self, rule: Pattern) -> Pattern:
        """Return the rule, which keeps documents apart where there are several in a sample."""
        return rule if self.facts.document_BK is None else rule & SameDocument()

    def within_memory(self, rule: Pattern) -> Pattern:
        """Return the rule, which sees no more than the cache lets see."""
        return rule if self.cache is None or self.cache.rule is None else rule & self.cache.rule

    def drops(self, place: str) -> bool:
        """Whether positions are dropped in the branch `place`."""
        return self.dropped in (EVERYWHERE, place)

    def kept_BT(self, place: str) -> Tensor | None:
        """False at queries whose position is dropped there; None: all are kept."""
        return self.keeps(self.extra_BT, self.position_ids_BT) if self.drops(place) else None

    def keeps(self, extra: Tensor | None, like: Tensor) -> Tensor | None:
        """False at tokens whose position is dropped where some are; `like`: of their shape. None: all are kept."""
        if self.drop_at == "extra":
            return None if extra is None else ~extra
        if self.drop_at == "text" and extra is not None:
            return extra
        return torch.zeros_like(like, dtype=torch.bool)

    def over_all(
        self, place: str, sight: Sight | None, transform: Transform | None = None, *, table: Tensor | None = None
    ) -> AttentionPlan:
        """Return the plan of an attention of all tokens.

        Args:
            place: the branch. sight: what is seen; None: all up to the query's own place.
            transform: of scores that have their positions in them.
            table: what is seen as a mask that stands in place of a sight, as in `reference.attend`.
        """
        keys_extra = self.extra_BT if self.cache is None else self.facts.extra_BK
        keep_BK = self.keeps(keys_extra, self.keys_ids_BK) if self.drops(place) else None
        score = None
        if self.positions.transforms_scores:
            score = partial(self.positions.score, position_ids_BT=self.keys_ids_BK, keep_BT=keep_BK)
        rotation = self.positions.prepare(self.position_ids_BT, self.kept_BT(place))
        return AttentionPlan(self.positions, rotation, composed(score, transform), sight, table, extra_BT=self.extra_BT)

    def over_extra(self, place: str) -> AttentionPlan | None:
        """Return the plan of a causal attention of extra tokens among themselves; None where there are none."""
        if self.extra_BT is None:
            return None
        slots = None if self.cache is None else self.cache.extra_slots(self.extra_BT)
        if slots is not None and not len(slots.slot_R):
            return None
        drop = self.drops(place) and self.drop_at != "text"
        blocks = MetaBlocks.find(self.extra_BT, self.document_ids_BT, self.extra_lengths)
        ids_1R = blocks.gather(self.position_ids_BT.expand_as(self.extra_BT))[None]
        score = None
        if self.positions.transforms_scores:
            ids = blocks.pad(ids_1R[0]) if self.cache is None else self.cache.extra_position_ids()
            keep = torch.zeros_like(ids, dtype=torch.bool) if drop else None
            score = partial(self.positions.score, position_ids_BT=ids, keep_BT=keep)
        keep_1R = torch.zeros_like(ids_1R, dtype=torch.bool) if drop else None
        rotation = self.positions.prepare(ids_1R, keep_1R)
        sight = None
        if slots is not None and self.cache is not None and self.cache.rule is not None:
            rule = self.within_memory(Causal() & MetaToMeta())
            sight = Sight(rule, self.cache.extra_facts(), slice(0, slots.n_slots))
        return AttentionPlan(self.positions, rotation, score, sight, blocks=blocks, slots=slots)


def composed(first: Transform | None, then: Transform | None) -> Transform | None:
    """Return the transform that does one after the other, and none where there is none."""
    if first is None or then is None:
        return then if first is None else first

    def both(scores: Tensor, **where: object) -> Tensor:
        return then(first(scores, **where), **where)

    return both


def build(forward: Forward, mechanism: "Mechanism", n_layers: int) -> list[Plans]:
    """Return the plans of all branches, for each layer; layers that see the same share theirs."""
    rows_R = None
    if mechanism.parts_of_attention and forward.extra_BT is not None:
        known = forward.extra_lengths
        rows_R = where(forward.extra_BT.flatten(), None if known is None else sum(known.lengths))
    by_layer = [forward.pattern.at(layer, n_layers) for layer in range(n_layers)]
    of_pattern: dict[Pattern, Plans] = {}
    for pattern in dict.fromkeys(by_layer):
        here = forward if pattern is forward.pattern else replace(forward, pattern=pattern)
        itself = here.over_all(SELF_ATTENTION.name, mechanism.opened(here), mechanism.transform(here))
        itself = itself if rows_R is None else replace(itself, extra_rows_R=rows_R)
        of_pattern[pattern] = {SELF_ATTENTION.name: itself, **mechanism.plans(here), MLP.name: Plan()}
    return [of_pattern[pattern] for pattern in by_layer]
