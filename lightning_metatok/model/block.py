"""One block of the transformer: a list of branches (`model.branch`), each of which adds its update to the stream.

    x = x + SelfAttention(LN1(x))             every token
    x = x + ...                               what the mechanism adds, at the rows that its plan says
    x = x + MLP(LN2(x))                       every token

arXiv 2509.16278 puts meta-attention "after causal masked self-attention, inside each layer". With norm="post"
each line is x = LN(x + f(x)) instead, at the same rows.
"""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_metatok.model.attention.layers import Plan
from lightning_metatok.model.attention.plan import Plans
from lightning_metatok.model.branch import MLP as MLP_BRANCH
from lightning_metatok.model.branch import SELF_ATTENTION, Branch
from lightning_metatok.model.cache import KeysValues, Memories
from lightning_metatok.model.config import TransformerConfig
from lightning_metatok.model.start import Start


class MLP(nn.Module):
    """Two linear layers with the configured activation between them."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        n_up = 2 * config.mlp_dim if config.activation == "swiglu" else config.mlp_dim
        self.up = nn.Linear(config.d_model, n_up, bias=config.bias)
        self.down = nn.Linear(config.mlp_dim, config.d_model, bias=config.bias)
        self.activation = config.activation

    def forward(self, x_BTD: Tensor, plan: Plan | None = None, memory: None = None) -> Tensor:
        """The residual's update, [B, T, D]; every row is alone, so it needs neither plan nor memory."""
        hidden = self.up(x_BTD)
        if self.activation == "relu":
            hidden = F.relu(hidden)
        elif self.activation == "swiglu":
            gate, hidden = hidden.chunk(2, dim=-1)
            hidden = F.silu(gate) * hidden
        else:
            hidden = F.gelu(hidden, approximate="tanh" if self.activation == "gelu_tanh" else "none")
        update_BTD: Tensor = self.down(hidden)
        return update_BTD


class Block(nn.Module):
    """Self-attention, what the mechanism adds at this layer, and the MLP, all residual."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.pre_norm, self.parallel = config.norm == "pre", config.parallel
        parts = self.parts(config, layer)
        self.branches = [branch for branch, _ in parts]
        for branch, module in parts:
            self.add_module(branch.norm, norm_of(config))
            self.add_module(branch.module, module)
            self.add_module(branch.behind, nn.Identity())
        self.dropout = nn.Dropout(config.dropout)

    def parts(self, config: TransformerConfig, layer: int) -> list[tuple[Branch, nn.Module]]:
        """Its branches and their modules, in the order of the sum."""
        mechanism = config.built_mechanism
        attention = mechanism.attention(config, layer)
        added = mechanism.branches(config, layer, attention)
        return [(SELF_ATTENTION, attention), *added, (MLP_BRANCH, MLP(config))]

    def forward(self, x_BTD: Tensor, plans: Plans, memories: Memories | None = None) -> Tensor:
        """The residual stream after this block, [B, T, D]. A branch whose plan is None has nothing to work on."""
        fresh, entered_BTD = False, x_BTD
        for branch in self.branches:
            if (plan := plans[branch.name]) is not None:
                memory = None if memories is None else memories.of(branch)
                x_BTD = self._add(branch, x_BTD, entered_BTD if self.parallel else x_BTD, plan, memory, fresh)
                fresh = True
            x_BTD = getattr(self, branch.behind)(x_BTD)
        return x_BTD

    def _add(
        self, branch: Branch, x_BTD: Tensor, read_BTD: Tensor, plan: Plan, memory: KeysValues | None, fresh: bool
    ) -> Tensor:
        """One line of the sum: x + f(read). `fresh`: x is the sum of a line above, which nobody else holds."""
        norm, module = getattr(self, branch.norm), getattr(self, branch.module)
        # Norm and projections see the rows at work alone: gathering first is what keeps meta-attention cheap.
        rows = read_BTD if plan.blocks is None else plan.blocks.gather(read_BTD)
        update = self.dropout(module(norm(rows) if self.pre_norm else rows, plan=plan, memory=memory))
        if plan.blocks is None:
            added_BTD: Tensor = x_BTD + update if self.pre_norm else norm(x_BTD + update)
            return added_BTD
        flat, where = x_BTD.flatten(0, 1), plan.blocks.rows_R
        if not self.pre_norm:
            return flat.index_copy(0, where, norm(rows + update).to(flat.dtype)).view_as(x_BTD)
        # In place where nobody looks: autograd does not keep a sum either.
        add = flat.index_add_ if fresh else flat.index_add
        return add(0, where, update.to(flat.dtype)).view_as(x_BTD)


def norm_of(config: TransformerConfig) -> nn.Module:
    """A norm of the residual stream."""
    if config.norm_type == "rms":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps)
    return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)


def initialise(module: nn.Module, n_layers: int, start: Start, std: float = 0.02) -> None:
    """Initialise as nanoGPT does: normal(0, std) weights, zero biases, the last layer of each branch
    smaller.

    Smaller by sqrt(2 * n_layers), so that the residual stream's variance does not grow with depth. A module that has
    ``draw(start)`` draws its own parameters.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            last = name.endswith((".projections.out", ".mlp.down"))
            of_part = std / math.sqrt(2 * n_layers) if last else std
            start.under(name)("weight", part.weight, nn.init.normal_, std=of_part)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if (draw := getattr(part, "draw", None)) is not None:
            draw(start.under(name))
