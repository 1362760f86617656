"""OmniNet: behind every few blocks one attention over all tokens of all of these blocks, pooled back to one a token.

    states of the last P blocks    x_1 ... x_P, side by side token by token: (token 1: x_1 .. x_P), (token 2: ...), ...
    O = attention of them all      a state of token t sees the states, of all P blocks, of tokens up to t, or of all
    x = x_P + pool(O)              over the P states of each token

every  P: blocks of a partition; those left over at the end have none, and fewer blocks than that are one partition
query  all: every state asks, and `pool` makes one of P answers; top: the last block's states ask, as in the official
       code's query_type
pool   max over the states of a token, or last
attend what the attention is: dense; kernel or low_rank, whose cost grows with the text and not with its square
rank   random features of a kernel, or keys of low rank

Tay et al., ICML 2021, arXiv 2103.01075. Under a causal pattern, whichever it is, this is the form for language models:
a state of a later token is never seen, of whatever block. Under the pattern `bidirectional` it is the paper's encoder,
in which every state sees all; under `prefix_lm` one of a prompt sees all of the prompt. Positions are those of
self-attention. Dense, it costs P x P the scores of one attention; the paper's Performer is `kernel`, its Linformer
`low_rank`, for encoders alone. Extra tokens are tokens.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lightning_metatok.errors import UserError
from lightning_metatok.model import positions
from lightning_metatok.model.attention import masks
from lightning_metatok.model.attention.layers import AttentionPlan, Projections
from lightning_metatok.model.attention.patterns import Bidirectional, Causal, Pattern
from lightning_metatok.model.attention.plan import Forward, Plans
from lightning_metatok.model.branch import SELF_ATTENTION, Branch
from lightning_metatok.model.cache import Memories
from lightning_metatok.model.mechanisms.base import Between, Mechanism, refuse
from lightning_metatok.model.mechanisms.cheaper import Kernel, LowRank
from lightning_metatok.options import at_least

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig

OMNI = Branch("omninet", "between", "norm", "omnidirectional attention")
"""The name that it remembers under in generation, and its plan."""


class OmniAttention(nn.Module):
    """The attention of one partition."""

    def __init__(
        self, config: "TransformerConfig", norm: nn.Module, query: str, pool: str, inner: Kernel | LowRank | None = None
    ) -> None:
        super().__init__()
        self.norm, self.projections, self.query, self.pool = norm, Projections(config), query, pool
        self.inner = inner

    def forward(self, states: Sequence[Tensor], plan: AttentionPlan, memories: Memories | None) -> Tensor:
        """What is added to the last of P states, [B, T, D]."""
        P = len(states)
        parts = [self.projections.split(self.norm(x)) for x in states]
        turned = [plan.positions.apply_to(q.transpose(1, 2), k.transpose(1, 2), plan.rotation) for q, k, _ in parts]
        asking = turned if self.query == "all" else turned[-1:]
        q_BNQH = position_major([q for q, _ in asking])
        k_BNKH = position_major([k for _, k in turned])
        v_BNKH = position_major([v.transpose(1, 2) for _, _, v in parts])
        T = states[0].shape[1]
        if memories is not None and (memory := memories.of(OMNI)) is not None:
            k_BNKH, v_BNKH = memory.append(k_BNKH, v_BNKH)
        if isinstance(self.inner, LowRank):
            out_BNQH = self.inner(q_BNQH, k_BNKH, v_BNKH)
        elif isinstance(self.inner, Kernel):
            sight, sizes = plan.sight, {"asking": len(asking), "looked_at": P}
            document_BK = None if sight is None else sight.facts.document_BK
            causal = sight is None or sight.rule.causal
            out_BNQH = self.inner(q_BNQH, k_BNKH, v_BNKH, document_BK, **sizes, causal=causal)
        else:
            seen = plan.mask
            if seen is None:
                K = k_BNKH.shape[2] // P
                seen = masks.causal(T, K, device=q_BNQH.device)[None, None]
            seen = seen.repeat_interleave(len(asking), dim=-2).repeat_interleave(P, dim=-1)
            out_BNQH = scaled_dot_product_attention(q_BNQH, k_BNKH, v_BNKH, attn_mask=seen)
        out_BQD = self.projections.finish(out_BNQH.transpose(1, 2).flatten(-2))
        of_token_BTPD = out_BQD.unflatten(1, (T, len(asking)))
        return of_token_BTPD.amax(dim=2) if self.pool == "max" else of_token_BTPD[:, :, -1]


class OmniNetBetween(Between):
    """One attention behind each partition."""

    def __init__(self, config: "TransformerConfig", every: int, rule: "OmniNet") -> None:
        super().__init__()
        from lightning_metatok.model.block import norm_of  # blocks know mechanisms

        self.every = every
        self.partitions = nn.ModuleList(
            OmniAttention(config, norm_of(config), rule.query, rule.pool, rule.inner(config))
            for _ in range(config.n_layers // every)
        )

    def forward(self, states: Sequence[Tensor], layer: int, plans: Plans, memories: Memories | None = None) -> Tensor:
        if (layer + 1) % self.every:
            return states[-1]
        attention = self.partitions[layer // self.every]
        update_BTD: Tensor = attention(states[-self.every :], cast(AttentionPlan, plans[OMNI.name]), memories)
        return states[-1] + update_BTD


def position_major(parts: Sequence[Tensor]) -> Tensor:
    """Rows of P tensors [B, N, T, H] token by token, [B, N, T * P, H]: those of one token side by side."""
    return torch.stack(list(parts), dim=3).flatten(2, 3)


def seen_beside(pattern: Pattern) -> Pattern:
    """What omnidirectional attention lets see where self-attention has that pattern."""
    return pattern if pattern.prompts else Causal() if pattern.causal else Bidirectional()


class OmniNet(Mechanism):
    """Behind every few blocks one attention over all tokens of all of these blocks, pooled to one a token."""

    needs_all_keys = True

    def __init__(
        self,
        *,
        every: Annotated[int, at_least(1)] = 2,
        query: Literal["all", "top"] = "all",
        pool: Literal["max", "last"] = "max",
        attend: Literal["dense", "kernel", "low_rank"] = "dense",
        rank: Annotated[int, at_least(1)] | None = None,
    ) -> None:
        self.every, self.query, self.pool, self.attend = every, query, pool, attend
        self.rank = 64 if rank is None else rank
        self._rank_given = rank is not None
        if attend == "low_rank":
            why = "with attend='low_rank' each of its keys is a mixture of all rows"
            self.cannot = {"documents": why}  # type: ignore[misc]  # these options' alone

    @property
    def idle(self) -> bool:
        return False

    def says(self) -> list[str]:
        return [
            f"every {self.every}",
            *([] if self.query == "all" else ["top"]),
            *([] if self.pool == "max" else ["last"]),
            *([] if self.attend == "dense" else [f"{self.attend} {self.rank}"]),
        ]

    def check(self, config: "TransformerConfig") -> None:
        if positions.AXIS.find(config.position).transforms(config.position_options):
            raise UserError(
                f"model.position={config.position!r}: expected one that does not transform scores with "
                "model.mechanism='omninet', whose scores are between states of several blocks"
            )
        if self.attend == "low_rank" and config.built_pattern.causal:
            expected = f"dense or kernel with model.pattern={config.pattern!r}: each key of low rank mixes all tokens"
            raise refuse("attend", self.attend, f"{expected}, later ones among them")
        if self.attend != "dense" and config.built_pattern.prompts:
            expected = f"dense with model.pattern={config.pattern!r}: its sums are up to each token or over all"
            raise refuse("attend", self.attend, expected)
        if self.attend == "dense" and self._rank_given:
            raise refuse("rank", self.rank, "no value with attend='dense', which has no rank")

    def rules(self, layer: int, pattern: Pattern) -> tuple[Pattern, ...]:
        return () if (layer + 1) % self.every else (seen_beside(pattern),)

    def plans(self, forward: Forward) -> Plans:
        sight = forward.sight(seen_beside(forward.pattern))
        return {OMNI.name: forward.over_all(SELF_ATTENTION.name, sight)}

    def between(self, config: "TransformerConfig") -> Between:
        return OmniNetBetween(config, self._every(config), self)

    def inner(self, config: "TransformerConfig") -> Kernel | LowRank | None:
        """The attention of one partition where it is not dense."""
        if self.attend == "kernel":
            return Kernel(self.rank, config.head_dim)
        return LowRank(self.rank, config.max_positions * self._every(config)) if self.attend == "low_rank" else None

    def longest(self, config: "TransformerConfig") -> int | None:
        return config.max_positions if self.attend == "low_rank" else None

    def share(self, extra_share: float) -> float:
        return 1.0

    def flops_per_token(self, config: "TransformerConfig", n: int, extra_share: float) -> float:
        """F (6 P A + 12 D P Q K): F partitions of P blocks, A weights of an attention, Q states that ask of a token, K
        tokens that they see; not dense, F (6 P A + 12 D R (P + Q)), R the rank."""
        every = self._every(config)
        seen = seen_beside(config.built_pattern).mean_keys(n, extra_share)
        asking = every if self.query == "all" else 1
        scores = 12 * config.d_model * every * asking * seen
        if self.attend != "dense":
            scores = 12 * config.d_model * self.rank * (every + asking)
        return config.n_layers // every * (6 * every * config.n_attention_weights + scores)

    def _every(self, config: "TransformerConfig") -> int:
        return min(self.every, config.n_layers)
