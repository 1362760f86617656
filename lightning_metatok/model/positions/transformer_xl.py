"""Transformer-XL's relative attention (Dai et al., ACL 2019, arXiv 1901.02860), as Csordas et al. 2021 use it.

    score(i, j) = ((q_i + u_h) . k_j + (q_i + v_h) . W_h r(i - j)) / sqrt(H)
    r(d) = (sin(d w_l), cos(d w_l)), l = 0..D/2 - 1, w_l = 10000^(-2 l / D)

u and v are learned vectors, W a learned D x D projection cut into heads. (Csordas et al. write r(j - i), which is the
same up to the sign of W's sine columns.)

No T x T table of r is made, nor shifted: sin and cos of a difference are products, so W's side of the score is a matrix
product of a turned W^T (q + v) with the sinusoids of the keys. That is right at any ids, in any order.

Learned: yes, u, v and W of every layer; u and v start at 0, W as Xavier uniform. `embedding` gives the token embeddings
the start and scale of Csordas et al. (noscale, opennmt, downscaled; see `embedding_scaling`); not given, GPT-2's.
keep=False: the term with r is left out for a pair with a dropped position. u . k stays, which no position enters.
Cost: N times the multiply-adds of q k^T and D-wide queries a head: dear with many heads. D^2 + 2 D parameters a layer.
"""

import math

import torch
from torch import Tensor, nn

from lightning_metatok.errors import UserError
from lightning_metatok.model.positions import embedding_scaling
from lightning_metatok.model.positions.base import PositionEncoding, Rows, Sizes
from lightning_metatok.model.positions.score_bias import kept_pairs, pairs
from lightning_metatok.model.start import Start


class TransformerXLPositions(PositionEncoding):
    """Scores between queries and projected sinusoids of the distance."""

    equation = "u_h . k_j + (q_i + v_h) . W_h r(i - j), over sqrt(H)"
    learned = "D^2 + 2 D a layer"
    claims = "somewhat"
    transforms_scores = True

    def __init__(self, sizes: Sizes, *, embedding: embedding_scaling.Scaling | None = None) -> None:
        super().__init__()
        if sizes.d_model % 2:
            raise UserError(f"model.d_model={sizes.d_model}: expected an even number for position='transformer_xl'")
        self.n_heads, self.d_model, self.embedding = sizes.n_heads, sizes.d_model, embedding
        self.token_scale = embedding_scaling.token_scale(embedding, sizes.d_model)
        layers = range(sizes.n_layers)
        self.u = nn.ParameterList(torch.zeros(sizes.d_model) for _ in layers)
        self.v = nn.ParameterList(torch.zeros(sizes.d_model) for _ in layers)
        self.w = nn.ParameterList(torch.empty(sizes.d_model, sizes.d_model) for _ in layers)
        self.draw(Start.anew())

    def draw(self, start: Start) -> None:
        for layer, w_DD in enumerate(self.w):
            start(f"w.{layer}", w_DD, nn.init.xavier_uniform_)

    def initialise_tokens(self, weight_VD: Tensor, start: Start) -> None:
        embedding_scaling.initialise(weight_VD, self.embedding, start)

    def score(
        self,
        scores_BNQK: Tensor,
        position_ids_BT: Tensor,
        keep_BT: Tensor | None,
        *,
        layer: int = 0,
        rows: Rows | None = None,
    ) -> Tensor:
        assert rows is not None, "Transformer-XL's scores are made of q and k"
        q_BNQH, k_BNKH = rows.q_BNQH, rows.k_BNKH
        u, v, w = (x[layer].unflatten(0, (self.n_heads, -1)).to(q_BNQH.dtype) for x in (self.u, self.v, self.w))
        content_BN1K = u[:, None] @ k_BNKH.transpose(-1, -2)
        position_BNQK = self._turned((q_BNQH + v[:, None]) @ w, *pairs(position_ids_BT, scores_BNQK, rows))
        kept = kept_pairs(keep_BT, scores_BNQK, rows)
        if kept is not None:
            position_BNQK = position_BNQK.masked_fill(~kept, 0)
        return scores_BNQK + (content_BN1K + position_BNQK) / math.sqrt(q_BNQH.shape[-1])

    def _turned(self, weights_BNQD: Tensor, query_BQ1: Tensor, key_B1K: Tensor) -> Tensor:
        """Sum over l of s_l sin((i - j) w_l) + c_l cos((i - j) w_l), [B, N, Q, K]; the weights are s, then c."""
        dtype = torch.promote_types(weights_BNQD.dtype, torch.float32)
        exponents = torch.arange(0, self.d_model, 2, dtype=dtype, device=query_BQ1.device) / self.d_model
        frequencies = 10000.0**-exponents
        query, key = query_BQ1 * frequencies, key_B1K.transpose(1, 2) * frequencies
        s, c = weights_BNQD.chunk(2, dim=-1)
        sin, cos = query.sin()[:, None], query.cos()[:, None]
        turned_BNQD = torch.cat((c * sin - s * cos, s * sin + c * cos), dim=-1)
        sinusoids_B1DK = torch.cat((key.sin(), key.cos()), dim=-1)[:, None].transpose(-1, -2)
        return turned_BNQD @ sinusoids_B1DK
