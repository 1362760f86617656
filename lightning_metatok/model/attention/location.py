"""Attention to a place: where a row looks is a number that moves along the text by learned steps.

    centre_t = past_{t-1} + step(x_t)             in tokens, from the first of the document to the last that t sees
    lambda_tj = softmax_j -(j - centre_t)^2 / (2 width(x_t)^2),   width = relu(.) + 0.27
    weights   = g lambda + (1 - g) softmax(q k),  g = sigmoid(.)       with `mix`; else lambda alone

past  centre: the centre itself. Rows below do not change it, so that all are found at once, in log2(T) rounds
      mean: sum_j lambda_tj j, as published, which falls into place where the text has tokens. It depends on the
      weights of the row before: one row after the other, T rounds

Each head has its own place; weights are dense, [B, N, T, T]. A row that sees nothing (one of a prompt that those behind
it look at) gets nothing, and the next one begins at the first token. Sources: Dubois et al. 2020, arXiv 1911.03872; Ray
Chowdhury and Caragea 2023, arXiv 2305.20019, whose places are shares of a source's length: no decoder knows that.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from lightning_metatok.model.attention import masks
from lightning_metatok.model.attention.backends import reference
from lightning_metatok.model.attention.layers import Attention, AttentionPlan, Projections
from lightning_metatok.model.cache import KeysValues

if TYPE_CHECKING:
    from lightning_metatok.model.config import TransformerConfig

Step = Literal["one_step", "monotonic", "stair", "free"]
Past = Literal["centre", "mean"]
NARROWEST = 0.27
"""Tokens; the neighbours of a centre that is a token's place have a thousandth of its weight."""


def stair(x: Tensor) -> Tensor:
    """Whole numbers with soft edges between them: floor(x) + sigmoid(20 (x - floor(x) - 1/2))."""
    return x.floor() + torch.sigmoid(20 * (x - x.floor() - 0.5))


STEPS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "one_step": lambda x: torch.sigmoid(5 * x),
    "monotonic": torch.relu,
    "stair": stair,
    "free": lambda x: x,
}


@dataclass(frozen=True)
class LocationPlan(AttentionPlan):
    """What it may see, and where all of that stands."""

    place_BK: Tensor = field(kw_only=True)
    """How many tokens of its document stand before a key; the queries are the last of them. What a row sees of its
    document begins with the first."""


class Values(Projections):
    """The weights of an attention that asks for no content: values and the output; its q and k have no width."""

    def __init__(self, config: "TransformerConfig") -> None:
        super().__init__(config)
        self.qkv = nn.Linear(config.d_model, config.kv_heads * config.head_dim, bias=self.qkv.bias is not None)

    def heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        v = qkv.unflatten(-1, (self.n_kv_heads, -1)).repeat_interleave(self.n_heads // self.n_kv_heads, dim=-2)
        nothing = v[..., :0]
        return nothing, nothing, v


class LocationAttention(Attention):
    """Attention to a place, or to a place and to content."""

    def __init__(self, config: "TransformerConfig", *, layer: int, step: Step, past: Past, mix: bool) -> None:
        super().__init__(config, layer=layer, projections=None if mix else Values(config))
        self.step, self.past, self.mix = STEPS[step], past, mix
        self.place = nn.Linear(config.d_model, (3 if mix else 2) * config.n_heads)
        """What step, width and mix are made of."""

    def forward(self, x_BTD: Tensor, plan: AttentionPlan, memory: KeysValues | None = None) -> Tensor:
        """The residual's update, [B, T, D]; `memory` has the last place as one more number of its key."""
        weights_BNTK, v_BNKH = self.weigh(x_BTD, plan, memory)
        weights_BNTK = nn.functional.dropout(weights_BNTK, self.dropout, self.training)
        out_BNTH = weights_BNTK.to(v_BNKH.dtype) @ v_BNKH
        update_BTD = self.weights.finish(self.weights.gated(out_BNTH.transpose(1, 2), x_BTD))
        assert isinstance(plan, LocationPlan), "the plan does not say where keys stand"
        seen = seen_by(plan, x_BTD.shape[1])
        return update_BTD * seen.any(dim=-1).squeeze(1).unsqueeze(-1)  # biases, too, are for rows that see something

    def look(self, x: Tensor, plan: AttentionPlan, *, scores: bool = True) -> tuple[Tensor, Tensor | None]:
        """Its scores are the logarithms of its weights."""
        if not scores:
            return super().look(x, plan, scores=False)
        weights_BNTT, v_BNTH = self.weigh(x, plan)
        smallest = torch.finfo(weights_BNTT.dtype).tiny
        scores_BNTT = weights_BNTT.clamp_min(smallest).log()
        assert isinstance(plan, LocationPlan), "the plan does not say where keys stand"
        return v_BNTH.transpose(1, 2).flatten(-2), scores_BNTT.masked_fill(~seen_by(plan, x.shape[1]), -torch.inf)

    def weigh(self, x_BTD: Tensor, plan: AttentionPlan, memory: KeysValues | None = None) -> tuple[Tensor, Tensor]:
        """Weights [B, N, T, K] and values [B, N, K, H]."""
        assert isinstance(plan, LocationPlan), "the plan does not say where keys stand"
        T, place_BK = x_BTD.shape[1], plan.place_BK
        q, k, v = (x.transpose(1, 2) for x in self.project(x_BTD, plan))
        if self.mix:
            q, k = plan.positions.apply_to(q, k, plan.rotation)
        # Places are counted in thousands, with a fraction: too much for 16 bits.
        of_rows = self.place(x_BTD).to(torch.promote_types(x_BTD.dtype, torch.float32)).transpose(1, 2)
        step_BNT, width_BNT, *gate = of_rows.chunk(3 if self.mix else 2, dim=1)
        step_BNT, width_BNT = self.step(step_BNT), torch.relu(width_BNT) + NARROWEST
        place_B1K = place_BK.to(step_BNT.dtype).unsqueeze(1)
        seen_BNTK = seen_by(plan, T)
        last_B1T = last_seen(place_B1K, seen_BNTK)
        last = None if memory is None else memory.last_k
        past_BN1 = torch.zeros_like(step_BNT[..., :1]) if last is None else last[..., -1:].to(step_BNT.dtype)
        if self.past == "centre":
            kept_BNT = centre_BNT = moved(step_BNT, last_B1T, past_BN1)
        else:
            centre_BNT, kept_BNT = moved_by_means(step_BNT, width_BNT, place_B1K, last_B1T, past_BN1, seen_BNTK)
        if memory is not None:
            keys = torch.cat((k.to(kept_BNT.dtype), kept_BNT.unsqueeze(-1)), dim=-1)
            keys, values = memory.append(keys, v.to(keys.dtype))
            k, v = keys[..., :-1].to(k.dtype), values.to(v.dtype)
        weights_BNTK = around(centre_BNT, width_BNT, place_B1K, seen_BNTK)
        if gate:
            of_content = reference.masked_scores(q, k, mask=plan.mask, score=plan.score_of(self.layer))
            content_BNTK = reference.weights(of_content).to(weights_BNTK.dtype)
            weights_BNTK = torch.lerp(content_BNTK, weights_BNTK, gate[0].sigmoid().unsqueeze(-1))
        return weights_BNTK, v


def seen_by(plan: LocationPlan, n_queries: int) -> Tensor:
    """What the queries of a plan may see, bool, which broadcasts to [B, N, Q, K]."""
    place_BK, seen = plan.place_BK, plan.mask
    return masks.causal(n_queries, place_BK.shape[1], place_BK.device)[None, None] if seen is None else seen


def last_seen(place_B1K: Tensor, seen_BNTK: Tensor) -> Tensor:
    """Place of the last key that each row sees, broadcast to [B, N, T]; 0 where it sees none."""
    return (place_B1K.unsqueeze(-2) * seen_BNTK).amax(dim=-1)


def moved(step_BNT: Tensor, last_B1T: Tensor, past_BN1: Tensor) -> Tensor:
    """Centres [B, N, T] that move from each row's to the next's: c_t = clamp(c_{t-1} + step_t, 0, last_t).

    c -> clamp(c + step, low, high) of a row after that of another is of this kind itself, so that each round doubles
    how many rows one stands for. The first row of a document sees place 0 alone, and one of a prompt may see nothing:
    what follows begins anew by this alone.
    """
    T, reach = step_BNT.shape[-1], 1
    step, low, high = step_BNT, torch.zeros_like(step_BNT), last_B1T.expand_as(step_BNT)
    while reach < T:
        alone = [x[..., :reach] for x in (step, low, high)]
        step_0, low_0, high_0 = (x[..., :-reach] for x in (step, low, high))
        step, low, high = (x[..., reach:] for x in (step, low, high))
        both = (step_0 + step, clamp(low_0 + step, low, high), clamp(high_0 + step, low, high))
        step, low, high = (torch.cat(parts, dim=-1) for parts in zip(alone, both, strict=True))
        reach *= 2
    return clamp(past_BN1 + step, low, high)


def clamp(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """As `torch.clamp`, whose gradient is lost where both bounds are one."""
    return torch.minimum(torch.maximum(x, low), high)


@torch.compiler.disable  # The compiler would unroll the loop.
def moved_by_means(
    step_BNT: Tensor, width_BNT: Tensor, place_B1K: Tensor, last_B1T: Tensor, past_BN1: Tensor, seen_BNTK: Tensor
) -> tuple[Tensor, Tensor]:
    """Centres [B, N, T] that move from the mean place of the row before's weights, and these means."""
    T = step_BNT.shape[-1]
    centres, means = [], [past_BN1]
    for t in range(T):
        row = slice(t, t + 1)
        zero = torch.zeros_like(step_BNT[..., row])
        centres.append(clamp(means[-1] + step_BNT[..., row], zero, last_B1T[..., row]))
        weights_BN1K = around(centres[-1], width_BNT[..., row], place_B1K, seen_BNTK[..., row, :])
        means.append((weights_BN1K * place_B1K.unsqueeze(-2)).sum(dim=-1))
    return torch.cat(centres, dim=-1), torch.cat(means[1:], dim=-1)


def around(centre_BNT: Tensor, width_BNT: Tensor, place_B1K: Tensor, seen_BNTK: Tensor) -> Tensor:
    """Weights [B, N, T, K] of the seen keys by how far they are from the centre of a row, in its widths."""
    away_BNTK = (place_B1K.unsqueeze(-2) - centre_BNT.unsqueeze(-1)) / width_BNT.unsqueeze(-1)
    return reference.weights((-away_BNTK.square() / 2).masked_fill(~seen_BNTK, -torch.inf))
