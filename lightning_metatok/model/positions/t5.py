"""T5's relative positions (Raffel et al., JMLR 2020, arXiv 1910.10683): a learned bias a bucket of distances and head.

    bias_h(i, j) = table[bucket(max(i - j, 0)), h]

With n buckets, distances below m = n / 2 have a bucket each; larger ones share, on a logarithmic scale, those up to
`max_distance`; all beyond are in the last:

    bucket(d) = m + floor(ln(d / m) / ln(max_distance / m) * (n - m)), at most n - 1        d >= m

Learned: yes; one table for all layers as in T5, or one a layer (`per_layer`). It starts at normal(0, 1 / sqrt(D)).
Defaults: 32 buckets, distance 128, as the T5 decoder. T5 itself does not divide scores by sqrt(H): `scaled` false.

`temperature` divides the sum of score and bias. Below 1 it sharpens attention that inputs longer than those trained
on would make flat (Chi, Fan, Rudnicky, "Attention Alignment", arXiv 2311.00684); it may be set on a trained model.

keep=False: the bias of a pair with a dropped position is 0, which no bucket need have.
Cost: a look-up a score; n_buckets x N parameters a table.
"""

import math
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_metatok.model.positions.base import Rows, Sizes
from lightning_metatok.model.positions.options import above, at_least, refuse
from lightning_metatok.model.positions.score_bias import ScoreBias
from lightning_metatok.model.start import Start


class T5Positions(ScoreBias):
    """Learned bias a bucket of distances."""

    equation = "table[bucket(max(i - j, 0)), h]"
    learned = "32 N, or 32 N a layer"
    claims = "somewhat"
    free_after_training: ClassVar[frozenset[str]] = frozenset({"temperature"})

    def __init__(
        self,
        sizes: Sizes,
        *,
        n_buckets: Annotated[int, at_least(2)] = 32,
        max_distance: Annotated[int, at_least(2)] = 128,
        per_layer: bool = False,
        scaled: bool = True,
        temperature: Annotated[float, above(0)] = 1.0,
    ) -> None:
        super().__init__()
        if max_distance <= n_buckets // 2:
            refuse("max_distance", max_distance, f"more than {n_buckets // 2}, half of n_buckets")
        self.n_buckets, self.max_distance = n_buckets, max_distance
        self.scale = 1.0 if scaled else math.sqrt(sizes.head_dim)
        self.temperature = temperature
        self.tables = nn.ParameterList(
            torch.empty(n_buckets, sizes.n_heads) for _ in range(sizes.n_layers if per_layer else 1)
        )
        self.std = 1 / math.sqrt(sizes.d_model)
        self.draw(Start.anew())

    def draw(self, start: Start) -> None:
        for layer, table in enumerate(self.tables):
            start(f"tables.{layer}", table, nn.init.normal_, std=self.std)

    def bias(self, query_BQ1: Tensor, key_B1K: Tensor, layer: int) -> Tensor:
        buckets_BQK = bucket((query_BQ1 - key_B1K).clamp(min=0), self.n_buckets, self.max_distance)
        table = self.tables[layer % len(self.tables)].to(query_BQ1.dtype)
        return F.embedding(buckets_BQK, table).permute(0, 3, 1, 2)

    def score(
        self,
        scores_BNQK: Tensor,
        position_ids_BT: Tensor,
        keep_BT: Tensor | None,
        *,
        layer: int = 0,
        rows: Rows | None = None,
    ) -> Tensor:
        bias = self.kept_bias(scores_BNQK, position_ids_BT, keep_BT, layer, rows)
        return (scores_BNQK * self.scale + bias) / self.temperature


def bucket(distance: Tensor, n_buckets: int, max_distance: int) -> Tensor:
    """Bucket of each distance, which is 0 or more."""
    exact = n_buckets // 2
    # Float32 and log(d / m), not log(d) - log(m): as published, which decides at the edges of buckets.
    ratio = distance.float().clamp(min=exact) / exact
    far = exact + (ratio.log() / math.log(max_distance / exact) * (n_buckets - exact)).long()
    return torch.where(distance < exact, distance.long(), far.clamp(max=n_buckets - 1))
