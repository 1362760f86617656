"""Meta-attention: causal attention among the meta-tokens alone (arXiv 2509.16278, section 3), sparse.

The paper states it as a T x T mask that forbids every pair which is not meta to meta. Here only the R meta
rows of the batch are gathered, and attend inside blocks, one a (sample, document):

    tokens   a * b c * | d * e f *      sample 0, documents 0 and 1; * is a meta-token
    rows_R       1   4     7     10     -> blocks of lengths 2, 2, each causal inside

At 10 % meta-tokens that is 1 % of the score matrix and 10 % of the projections. Rows of other tokens get
exactly 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_metatok.model.attention import backends
from lightning_metatok.model.attention.backends import xformers as xformers_backend
from lightning_metatok.model.attention.backends.reference import Score

if TYPE_CHECKING:
    from xformers.ops.fmha.attn_bias import BlockDiagonalCausalMask


class BlockLengths:
    """How many extra tokens each block has, where the host knows it; none is 0. Compiled graphs do not look inside."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = lengths


@torch.compiler.disable
def where(chosen: Tensor, n: int | None = None) -> Tensor:
    """Return where a flat bool tensor is True, int64 [n]. `n`: how many, where known; else the device is asked.

    Their number is data, which no compiled graph can hold.
    """
    return (chosen.nonzero() if n is None else torch.nonzero_static(chosen, size=n)).squeeze(-1)


@dataclass(frozen=True)
class MetaBlocks:
    """Where a batch's meta-tokens are and which of them see each other; made once a forward pass for all
    layers."""

    rows_R: Tensor
    """Flat indices into B * T of the meta rows, block by block, ascending inside a block."""

    lengths: list[int]
    """Lengths of the consecutive blocks of rows; none is 0."""

    pad_PL: Tensor | None
    """Blocks of different lengths: for each place of the right-padded [blocks, longest] layout the row it
    shows. None where all lengths are equal and a reshape does."""

    unpad_R: Tensor | None
    """The flat place of each row in that layout."""

    @classmethod
    @torch.compiler.disable
    def find(
        cls, meta_mask_BT: Tensor, document_ids_BT: Tensor | None = None, known: BlockLengths | None = None
    ) -> "MetaBlocks":
        """Describe the meta-tokens of a batch.

        Args:
            meta_mask_BT: bool, True at meta-tokens.
            document_ids_BT: document of each token; None: one document a sample.
            known: lengths of the blocks, by sample and document; None: the device is asked, and both wait.
        """
        assert meta_mask_BT.dtype == torch.bool, f"meta_mask_BT must be bool, not {meta_mask_BT.dtype}"
        lengths = None if known is None else list(known.lengths)
        rows_R = where(meta_mask_BT.flatten(), None if lengths is None else sum(lengths))
        if document_ids_BT is None:
            lengths = [n for n in meta_mask_BT.sum(dim=-1).tolist() if n] if lengths is None else lengths
        else:
            ids_BT = document_ids_BT - document_ids_BT.min()
            block_R = (rows_R // meta_mask_BT.shape[1]) * (ids_BT.max() + 1) + ids_BT.flatten()[rows_R]
            # A stable sort keeps each block in order even where a document's tokens are not next to each
            # other.
            block_R, order_R = block_R.sort(stable=True)
            rows_R = rows_R[order_R]
            if lengths is None:
                lengths = block_R.unique_consecutive(return_counts=True)[1].tolist()
        if len(set(lengths)) <= 1:
            return cls(rows_R, lengths, None, None)
        lengths_P = torch.tensor(lengths, pin_memory=rows_R.is_cuda).to(rows_R.device, non_blocking=True)
        place_L = torch.arange(max(lengths), device=rows_R.device)
        first_P1 = (lengths_P.cumsum(0) - lengths_P).unsqueeze(-1)
        real_PL = place_L < lengths_P.unsqueeze(-1)
        # A padded place shows its block's first row: finite, and after all real keys, so no real query sees
        # it.
        pad_PL = first_P1 + place_L * real_PL
        return cls(rows_R, lengths, pad_PL, where(real_PL.flatten(), sum(lengths)))

    def to_xformers(self) -> "BlockDiagonalCausalMask":
        """The same blocks as xformers describes them."""
        return xformers_backend.block_mask(self.lengths)

    def gather(self, x_BTD: Tensor) -> Tensor:
        """The meta rows, [R, ...]."""
        return x_BTD.flatten(0, 1).index_select(0, self.rows_R)

    def pad(self, x_R: Tensor) -> Tensor:
        """Rows laid out as [blocks, longest, ...]."""
        if self.pad_PL is None:
            n_blocks = len(self.lengths)
            return x_R.unflatten(0, (n_blocks, self.lengths[0] if n_blocks else 0))
        return x_R[self.pad_PL]

    def unpad(self, x_PL: Tensor) -> Tensor:
        """The inverse of `pad`, [R, ...]."""
        x = x_PL.flatten(0, 1)
        return x if self.unpad_R is None else x.index_select(0, self.unpad_R)


def attend_blocks(
    q_RNH: Tensor,
    k_RNH: Tensor,
    v_RNH: Tensor,
    blocks: MetaBlocks,
    *,
    score: Score | None = None,
    dropout: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """Causal attention inside each block of meta rows, [R, N, H]. `score` gets padded scores [blocks, N, L,
    L]."""
    if not blocks.lengths:
        return v_RNH
    chosen = backends.choose(
        backend, device=q_RNH.device, dtype=q_RNH.dtype, score=score is not None, blocks=blocks.lengths
    )
    if chosen.attend_ragged is not None:
        return _ragged(chosen.attend_ragged, q_RNH, k_RNH, v_RNH, blocks.lengths, dropout)
    q, k, v = (blocks.pad(x).transpose(1, 2) for x in (q_RNH, k_RNH, v_RNH))
    # Causal and right-padded: a real query sees real keys only, so no mask beyond the causal one is needed.
    return blocks.unpad(chosen.attend(q, k, v, score=score, dropout=dropout).transpose(1, 2))


@torch.compiler.disable  # Lengths are data: a compiled graph would be one for these alone.
def _ragged(
    attend: Callable[[Tensor, Tensor, Tensor, list[int], float], Tensor],
    q_RNH: Tensor,
    k_RNH: Tensor,
    v_RNH: Tensor,
    lengths: list[int],
    dropout: float,
) -> Tensor:
    return attend(q_RNH, k_RNH, v_RNH, lengths, dropout)


def meta_attention(
    q_BNTH: Tensor,
    k_BNTH: Tensor,
    v_BNTH: Tensor,
    meta_mask_BT: Tensor,
    *,
    document_ids_BT: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attention of meta-tokens to earlier meta-tokens of their document, themselves included.

    Args:
        q_BNTH, k_BNTH, v_BNTH: queries, keys and values of all tokens.
        meta_mask_BT: bool, True at meta-tokens; samples may hold different numbers of them, or none.
        document_ids_BT: document of each token; None: one document a sample.
        backend: "auto" or a name in `backends.BACKENDS`.

    Returns:
        [B, N, T, H], exactly 0 at all other tokens.

    Raises:
        UserError: the backend named is unknown or cannot run here.
    """
    blocks = MetaBlocks.find(meta_mask_BT, document_ids_BT)
    q_RNH, k_RNH, v_RNH = (blocks.gather(x.transpose(1, 2)) for x in (q_BNTH, k_BNTH, v_BNTH))
    out_RNH = attend_blocks(q_RNH, k_RNH, v_RNH, blocks, backend=backend)
    out_BTNH = torch.zeros_like(v_BNTH.transpose(1, 2), memory_format=torch.contiguous_format)
    return out_BTNH.flatten(0, 1).index_copy(0, blocks.rows_R, out_RNH).view_as(out_BTNH).transpose(1, 2)
