"""One block of the transformer.

    x = x + CausalSelfAttention(LN1(x))       every token
    x = x + MetaAttention(LNm(x))             meta rows only; other rows are not touched
    x = x + MLP(LN2(x))                       every token

arXiv 2509.16278 puts meta-attention "after causal masked self-attention, inside each layer". With norm="post"
each line is x = LN(x + f(x)) instead, in the second line on the meta rows only.
"""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_metatok.model.attention.layers import AttentionPlan, CausalSelfAttention, MetaAttention
from lightning_metatok.model.cache import KeysValues
from lightning_metatok.model.config import TransformerConfig


class MLP(nn.Module):
    """Two linear layers with the configured activation between them."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.mlp_dim, bias=config.bias)
        self.down = nn.Linear(config.mlp_dim, config.d_model, bias=config.bias)
        self.activation = config.activation

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The residual's update, [B, T, D]."""
        hidden = self.up(x_BTD)
        if self.activation == "relu":
            hidden = F.relu(hidden)
        else:
            hidden = F.gelu(hidden, approximate="tanh" if self.activation == "gelu_tanh" else "none")
        update_BTD: Tensor = self.down(hidden)
        return update_BTD


class Block(nn.Module):
    """Self-attention, meta-attention where the config has it at this layer, and MLP, all residual."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.meta_shared = config.meta_shared
        self.norm_attention = nn.LayerNorm(config.d_model, bias=config.bias)
        self.attention = CausalSelfAttention(config, layer=layer)
        self.norm_meta: nn.LayerNorm | None = None
        self.meta_attention: CausalSelfAttention | None = None
        if config.has_meta(layer):
            dense = config.meta_over == "all" or config.meta_fill is not None
            self.norm_meta = nn.LayerNorm(config.d_model, bias=config.bias)
            kind = CausalSelfAttention if dense else MetaAttention
            self.meta_attention = kind(config, layer=layer, shared=config.meta_shared)
        self.norm_mlp = nn.LayerNorm(config.d_model, bias=config.bias)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x_BTD: Tensor,
        plan: AttentionPlan,
        meta_plan: AttentionPlan | None,
        memory: KeysValues | None = None,
        meta_memory: KeysValues | None = None,
    ) -> Tensor:
        """The residual stream after this block, [B, T, D]. `meta_plan` None: no meta-tokens are about."""
        norm, attention = self.norm_attention, self.attention
        if self.pre_norm:
            x_BTD = x_BTD + self.dropout(attention(norm(x_BTD), plan, memory))
        else:
            x_BTD = norm(x_BTD + self.dropout(attention(x_BTD, plan, memory)))
        if self.meta_attention is not None and meta_plan is not None:
            x_BTD = self._second_attention(x_BTD, meta_plan, meta_memory)
        if self.pre_norm:
            return x_BTD + self.dropout(self.mlp(self.norm_mlp(x_BTD)))
        normed_BTD: Tensor = self.norm_mlp(x_BTD + self.dropout(self.mlp(x_BTD)))
        return normed_BTD

    def _second_attention(self, x_BTD: Tensor, plan: AttentionPlan, memory: KeysValues | None) -> Tensor:
        norm, attention = self.norm_meta, self.meta_attention
        assert norm is not None
        assert attention is not None
        shared = self.attention.projections if self.meta_shared else None
        # Norm and projections see the meta rows alone: gathering first is what keeps meta-attention cheap.
        rows = x_BTD if plan.blocks is None else plan.blocks.gather(x_BTD)
        update = self.dropout(attention(norm(rows) if self.pre_norm else rows, plan, memory, shared))
        if not self.pre_norm:
            rows = norm(rows + update)
        if plan.blocks is None:
            return x_BTD + update if self.pre_norm else rows
        flat, where = x_BTD.flatten(0, 1), plan.blocks.rows_R
        if self.pre_norm:
            # In place: x is the fresh sum of the line above, which autograd has not kept.
            return flat.index_add_(0, where, update.to(flat.dtype)).view_as(x_BTD)
        return flat.index_copy(0, where, rows.to(flat.dtype)).view_as(x_BTD)


def initialise(module: nn.Module, n_layers: int) -> None:
    """Initialise as nanoGPT does: normal(0, 0.02) weights, zero biases, the last layer of each branch
    smaller.

    Smaller by sqrt(2 * n_layers), so that the residual stream's variance does not grow with depth.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            last = name.endswith((".projections.out", ".mlp.down"))
            nn.init.normal_(part.weight, std=0.02 / math.sqrt(2 * n_layers) if last else 0.02)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
