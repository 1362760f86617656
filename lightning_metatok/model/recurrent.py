"""Recurrent memory: a row in segments, each read in a pass of its own (RMT: Bulatov et al. 2022, arXiv 2207.06881).

    pass 0    m m | a b c d | m m        m: M learned vectors
                              w w        hidden states there, behind the last norm
    pass 1    w w | e f g h | w w        what was written is what is read, and where is written next

The decoder's form: causal, so that text reads memory and what is written has read both. The tokens to write on are the
memory that is read, as in the paper's equation; nothing is learned but the first memory, which begins as embeddings do.
Positions are counted anew in each pass, memory's first. Memory begins anew with each row, so that rows may come in any
order. What a row's last segment would write is not computed: nobody reads it.

With `carry` memory goes on in training, from a row of a batch to the same row of the next one, which must go on in the
text, too; whoever trains says where rows begin anew (`carried_BMD = None`). Evaluation begins with each row as ever.

Gradients go back through `bptt` segments: passes form groups of `bptt + 1`, and what the first of a group reads is
detached. A loss reaches as far back as its group does.

Generation keeps keys and values of the segment at hand alone: a full segment writes its memory, and the next one has a
cache of its own. The numbers are those of the full pass.
"""

from dataclasses import replace
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_metatok.errors import UserError
from lightning_metatok.model.attention.meta import BlockLengths
from lightning_metatok.model.attention.reach import Reach
from lightning_metatok.model.cache import KVCache
from lightning_metatok.model.config import TransformerConfig
from lightning_metatok.model.recurrences import RMT
from lightning_metatok.model.start import Start
from lightning_metatok.model.transformer import MetaTransformer


class RecurrentTransformer(MetaTransformer):
    """A transformer that reads a row segment by segment."""

    def __init__(self, config: TransformerConfig, seed: int | None = None) -> None:
        """As `MetaTransformer`.

        Raises:
            UserError: a table of positions has no room for a segment and its memory.
        """
        seed = Start.anew().seed if seed is None else seed
        super().__init__(config, seed)
        self.rule = cast(RMT, config.built_recurrence)
        self.memory_MD = nn.Parameter(torch.empty(self.rule.memory, config.d_model))
        Start(seed)("memory_MD", self.memory_MD, nn.init.normal_, std=config.init_std)
        needed, limit = self.rule.segment + 2 * self.rule.memory, self.positions.max_positions
        if limit is not None and needed > limit:
            raise UserError(
                f"model.max_positions={config.max_positions}: a segment and its memory have {needed} positions; "
                "expected as many at least, or positions that have no table (model.position)"
            )
        self._around: tuple[Tensor, int, int] | None = None
        self.carried_BMD: Tensor | None = None
        """What the rows read last have written, without a gradient; None: rows begin anew."""

    def forward(
        self,
        tokens_BT: Tensor,
        meta_mask_BT: Tensor | None = None,
        position_ids_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        *,
        drop_positions: str | None = None,
        zero_meta_embedding: bool = False,
        cache: KVCache | None = None,
        extra_lengths: BlockLengths | None = None,
        return_hidden: bool = False,
    ) -> Tensor:
        """As `MetaTransformer.forward`; position ids are taken modulo the segment's length, behind its memory.

        Raises:
            UserError: as there, or prompts have padding before them.
        """
        if document_ids_BT is not None:
            self.config.check_can("documents")
        (B, T), S, M = tokens_BT.shape, self.rule.segment, len(self.memory_MD)
        past = 0 if cache is None else cache.length
        if position_ids_BT is None:
            position_ids_BT = torch.arange(past, past + T, device=tokens_BT.device)[None]
        carries = self.rule.carries and self.training and cache is None
        memory_BMD, inner = self.memory_MD.expand(B, -1, -1), None
        if carries and self.carried_BMD is not None:
            memory_BMD = self.carried_BMD + 0 * self.memory_MD  # DDP waits for a gradient of every parameter
        if cache is not None:
            _check_cache(cache, self.config)
            nothing_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
            cache.advance(nothing_BT if meta_mask_BT is None else meta_mask_BT, position_ids_BT)
            memory_BMD, inner = (memory_BMD, None) if cache.beside is None else cache.beside
        found = []
        borders = [0, *range(S - past % S, T, S), T]
        for first, stop in pairwise(borders):
            number, opened = divmod(past + first, S)
            opens, closes = opened == 0, (past + stop) % S == 0 and (stop < T or cache is not None or carries)
            if opens:
                inner = None if cache is None else KVCache(self.config.n_layers, page=cache.page)
                if number and number % (self.rule.bptt + 1) == 0:
                    memory_BMD = memory_BMD.detach()
            before, behind = M * opens, M * closes
            ids_BT = position_ids_BT[:, first:stop] % S + M
            read, written = (torch.arange(n, device=ids_BT.device).expand(len(ids_BT), -1) for n in (before, behind))
            self._around = memory_BMD, before, behind
            try:
                hidden_BTD = super().forward(
                    F.pad(tokens_BT[:, first:stop], (before, behind)),
                    None if meta_mask_BT is None else F.pad(meta_mask_BT[:, first:stop], (before, behind)),
                    torch.cat((read, ids_BT, written + M + S), dim=1),
                    drop_positions=drop_positions,
                    zero_meta_embedding=zero_meta_embedding,
                    cache=inner,
                    return_hidden=True,
                )
            finally:
                self._around = None
            found.append(hidden_BTD[:, before : before + stop - first])
            if closes:
                memory_BMD = hidden_BTD[:, -M:]
        if cache is not None:
            cache.beside = memory_BMD, inner
        if carries:
            self.carried_BMD = memory_BMD.detach()
        whole_BTD = torch.cat(found, dim=1)
        return whole_BTD if return_hidden else self.logits(whole_BTD)

    def embedded(self, tokens_BT: Tensor, extra_BT: Tensor | None, *, zero_extra: bool) -> Tensor:
        """As `MetaTransformer`'s, with memory in its places."""
        x_BTD = super().embedded(tokens_BT, extra_BT, zero_extra=zero_extra)
        assert self._around is not None, "only `forward` knows the memory"
        memory_BMD, before, behind = self._around
        memory_BMD = memory_BMD.to(x_BTD.dtype)
        text_BTD = x_BTD[:, before : x_BTD.shape[1] - behind]
        return torch.cat((memory_BMD[:, :before], text_BTD, memory_BMD[:, :behind]), dim=1)

    def weights_of_mechanism(self) -> dict[str, tuple[str, int | None]]:
        """As `MetaTransformer`'s, and the first memory."""
        return super().weights_of_mechanism() | {"memory_MD": ("recurrent memory", None)}

    def reach(self, extra_T: Tensor) -> Reach:
        """As `MetaTransformer`'s; memory is a way as extra tokens are one."""
        found, last = super().reach(extra_T), int((~extra_T).nonzero()[-1])
        own = int((~extra_T[last - last % self.rule.segment : last]).sum())
        return replace(found, layer=min(found.layer, own), text=min(found.text, own), all=found.n)

    def rows_per_token(self, T: int) -> float:
        """Memory is read in each segment, and written in all but the last."""
        return sum(self._passes(T)) / T

    def flops_per_token(self, T: int, meta_fraction: float = 0.0) -> float:
        """As `MetaTransformer`'s: the sum of the passes, each with its memory, whose positions have no logits."""
        head = 6 * self.config.vocab_size * self.config.d_model
        total, text = 0.0, 0
        for rows in self._passes(T):
            n = min(self.rule.segment, T - text)
            total += rows * (super().flops_per_token(rows, meta_fraction * n / rows) - head) + n * head
            text += n
        return total / T

    def _passes(self, T: int) -> list[int]:
        """Positions of each pass over a row of length T."""
        S, M = self.rule.segment, len(self.memory_MD)
        whole, rest = divmod(T - 1, S)
        return [S + 2 * M] * whole + [rest + 1 + M]


def _check_cache(cache: KVCache, config: TransformerConfig) -> None:
    assert cache.rule is None, "`memory.cache_of` refuses rules"
    if cache.padding_B is not None and bool(cache.padding_B.any()):
        raise UserError(
            f"model.recurrence={config.recurrence!r}: expected prompts of one length at a time, as segments begin with "
            "the first token, not with padding"
        )
