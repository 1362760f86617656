"""A part of `blocked`, where no score is transformed: each block of rows with the keys that its rule names, gathered.

    rows 0..1    keys 0 1                  a rule of window and extra tokens: a block costs rows x (window + extra
    rows 2..3    keys 0   2 3              tokens), whatever T is, in time and, as nothing of a block is kept, in memory
    rows 4..5    keys 0     3 4 5

Blocks run through PyTorch's flash kernel on a CPU, which takes a mask; elsewhere through the reference. The backward
pass is written out: it gathers again, and adds up the gradients of keys in one place.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_metatok.model.attention.backends import reference
from lightning_metatok.model.attention.sight import Block, Sight

ROWS = 256
"""Rows in a block: more cost work where the window ends, fewer cost calls."""
BORDER = 2**19
"""Pairs of rows and keys of a sample below which one table for all is faster: T of about 700."""


def pays(sight: Sight) -> bool:
    """Whether blocks are faster than one dense table: where it is large, and the rule leaves most of it out."""
    pairs = sight.n_queries * sight.facts.n
    return pairs >= BORDER and sight.n_queries > ROWS and sight.area(ROWS) < pairs // 2


def attend(q_BNQH: Tensor, k_BNKH: Tensor, v_BNKH: Tensor, sight: Sight) -> Tensor:
    """As `reference.attend` with the table of `sight`."""
    out: Tensor = _Chosen.apply(sight, q_BNQH, k_BNKH, v_BNKH)
    return out


class _Chosen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sight: Sight, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # Keys are gathered token by token: all heads of a token lie side by side.
        k, v = (x.transpose(1, 2).contiguous() for x in (k, v))
        out = q.new_empty(*q.shape[:3], v.shape[3])
        lse = q.new_empty(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32))
        for block in sight.blocks(ROWS):
            block_q, block_k, block_v = q[:, :, block.rows], _gathered(k, block), _gathered(v, block)
            if q.device.type == "cpu":
                result, lse[:, :, block.rows] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                    block_q, block_k, block_v, 0.0, False, attn_mask=block.added(q.dtype)
                )
                out[:, :, block.rows] = _sighted(result, block)
            else:
                out[:, :, block.rows] = reference.attend(block_q, block_k, block_v, mask=block.mask_BQK.unsqueeze(1))
        ctx.sight = sight
        ctx.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, Tensor]:
        q, k, v, out, lse = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for block in ctx.sight.blocks(ROWS):
            inputs, rows = [q[:, :, block.rows], _gathered(k, block), _gathered(v, block)], block.rows
            if q.device.type == "cpu":
                grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    _sighted(grad[:, :, rows], block),
                    *inputs,
                    out[:, :, rows],
                    lse[:, :, rows],
                    0.0,
                    False,
                    attn_mask=block.added(q.dtype),
                )
            else:
                with torch.enable_grad():
                    inputs = [x.detach().requires_grad_() for x in inputs]
                    again = reference.attend(inputs[0], inputs[1], inputs[2], mask=block.mask_BQK.unsqueeze(1))
                grads = torch.autograd.grad(again, inputs, grad[:, :, rows])
            dq[:, :, rows] = grads[0]
            _add(dk, grads[1], block)
            _add(dv, grads[2], block)
        return None, dq, dk.transpose(1, 2), dv.transpose(1, 2)


def _sighted(x_BNQH: Tensor, block: Block) -> Tensor:
    """`x` with 0 at rows that see nothing."""
    return x_BNQH if block.blind_B1Q1 is None else x_BNQH.masked_fill(block.blind_B1Q1, 0)


def _gathered(x_BKNH: Tensor, block: Block) -> Tensor:
    """The rows of the block's keys, [B, N, K', H]."""
    index_BK = block.index_BK
    if len(index_BK) == 1:
        return x_BKNH.index_select(1, index_BK[0]).transpose(1, 2)
    return x_BKNH.gather(1, _everywhere(index_BK, x_BKNH)).transpose(1, 2)


def _add(to_BKNH: Tensor, grad_BNKH: Tensor, block: Block) -> None:
    """Add the gradient of the block's keys to that of all keys."""
    index_BK, grad_BKNH = block.index_BK, grad_BNKH.transpose(1, 2)
    if len(index_BK) == 1:
        to_BKNH.index_add_(1, index_BK[0], grad_BKNH)
    else:
        to_BKNH.scatter_add_(1, _everywhere(index_BK, to_BKNH), grad_BKNH)


def _everywhere(index_BK: Tensor, like_BKNH: Tensor) -> Tensor:
    return index_BK[:, :, None, None].expand(len(like_BKNH), -1, *like_BKNH.shape[2:])
