"""The language model: GPT-2 with meta-attention in its blocks (arXiv 2509.16278, section 3 and appendix A).

    tokens -> embedding (+ positions) -> dropout -> blocks -> norm -> head -> logits

Shape letters: B batch, T positions, K positions with those in the cache, M meta slots, R meta rows of the
batch, N heads, H head dim, D model dim, V vocabulary.
"""

from functools import partial

import torch
from torch import Tensor, nn

from lightning_metatok.errors import UserError
from lightning_metatok.model import positions
from lightning_metatok.model.attention import masks
from lightning_metatok.model.attention.layers import AttentionPlan
from lightning_metatok.model.attention.meta import MetaBlocks
from lightning_metatok.model.block import Block, initialise
from lightning_metatok.model.cache import KVCache, MetaSlots
from lightning_metatok.model.config import TransformerConfig


class MetaTransformer(nn.Module):
    """A decoder-only transformer whose blocks hold a meta-attention layer, as `config` says."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = positions.build(
            config.position,
            n_layers=config.n_blocks,
            n_heads=config.n_heads,
            head_dim=config.head_dim,
            d_model=config.d_model,
            max_positions=config.max_positions,
            **config.position_options,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_blocks))
        # After post-norm blocks the stream is normed already.
        pre_norm = config.norm == "pre"
        self.norm = nn.LayerNorm(config.d_model, bias=config.bias) if pre_norm else nn.Identity()
        self.head = None if config.tied_head else nn.Linear(config.d_model, config.vocab_size, bias=False)
        initialise(self, config.n_layers)
        self.positions.initialise_tokens(self.embedding.weight)

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
        return_hidden: bool = False,
    ) -> Tensor:
        """Logits of the next token at every position.

        Args:
            tokens_BT: token ids. meta_mask_BT: bool, True at meta-tokens; None: there are none.
            position_ids_BT: positions; None: 0, 1, 2, ... going on where the cache stands. document_ids_BT:
            document of each token; tokens see their own document only. None: one a sample. drop_positions:
            where positions of meta slots are dropped, instead of what the config says. zero_meta_embedding:
            meta-tokens enter with a token embedding of zeros; positions are added as ever. cache: earlier
            tokens of the same sequences; takes up these. Not together with documents. return_hidden: return
            the normed hidden states [B, T, D] that `logits` takes, for a caller that needs logits at some
            positions only.

        Returns:
            logits_BTV.

        Raises:
            UserError: a learned table has too few positions, `drop_positions` is no choice, or the positional encoding
                cannot work with a cache or with documents.
        """
        config, past = self.config, 0 if cache is None else cache.length
        assert cache is None or document_ids_BT is None, "a cache holds one document a sample"
        if cache is not None:
            config.check_can("cache")
        if document_ids_BT is not None:
            config.check_can("documents")
        assert meta_mask_BT is None or meta_mask_BT.shape == tokens_BT.shape, "one mask entry a token"
        if drop_positions is None:
            drop_positions = config.drop_positions
        else:
            config.check_drop_positions(drop_positions)
        if not self.positions.needs_task_ids or position_ids_BT is None:
            self.check_length(past + tokens_BT.shape[1])
        if position_ids_BT is None:
            position_ids_BT = torch.arange(past, past + tokens_BT.shape[1], device=tokens_BT.device)[None]
        elif (
            self.positions.max_positions is not None
            and position_ids_BT.device.type == "cpu"
            and not (self.positions.draws_in_training and self.training)
        ):
            # On CUDA this look would stall the device, and the look-up itself refuses such an id there. Random starts
            # stay inside the table by themselves.
            self.check_length(int(position_ids_BT.max()) + 1)
        slots = None
        if cache is not None:
            if meta_mask_BT is None:
                meta_mask_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
            slots = cache.advance(meta_mask_BT, position_ids_BT)

        # First, so that torch.compile breaks its graph here, where no activation is alive yet.
        plan, meta_plan = self._plans(
            meta_mask_BT, position_ids_BT, document_ids_BT, drop_positions, cache, slots, tokens_BT.shape[1]
        )
        x_BTD = self.embedding(tokens_BT)
        if self.positions.token_scale != 1:
            x_BTD = x_BTD * self.positions.token_scale
        if zero_meta_embedding and meta_mask_BT is not None:
            x_BTD = x_BTD.masked_fill(meta_mask_BT.unsqueeze(-1), 0)
        keep_BT = ~meta_mask_BT if meta_mask_BT is not None and drop_positions == "both" else None
        if (embedded := self.positions.embed(position_ids_BT, keep_BT)) is not None:
            x_BTD = x_BTD + embedded.to(x_BTD.dtype)
        x_BTD = self.dropout(x_BTD)
        for i in range(config.n_layers):
            block = self.blocks[i % config.n_blocks]
            if cache is None:
                x_BTD = block(x_BTD, plan, meta_plan)
            else:
                x_BTD = block(x_BTD, plan, meta_plan, cache.self_attention[i], cache.meta_attention[i])
        hidden_BTD: Tensor = self.norm(x_BTD)
        return hidden_BTD if return_hidden else self.logits(hidden_BTD)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., D] that `forward` returned."""
        weight = self.embedding.weight if self.head is None else self.head.weight
        return nn.functional.linear(hidden, weight)

    def check_length(self, n_positions: int) -> None:
        """Raise `UserError` when the positional encoding has no place for so long a sequence."""
        limit = self.positions.max_positions
        if limit is not None and n_positions > limit:
            start = self.config.max_positions - limit
            less = f"{limit}" if not start else f"{limit + start}, less position_options.start={start}"
            raise UserError(
                f"T={n_positions} is larger than model.max_positions={less}: a position table cannot grow; "
                "train with a larger model.max_positions or with model.position='rotary'"
            )

    def n_parameters(self) -> int:
        """Number of parameters, a tied head counted once."""
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self, T: int, meta_fraction: float = 0.0) -> float:
        """Training FLOPs (forward and backward) a position of a sequence of length T, meta-tokens among them.

            6 (V D + L (4 D^2 + 2 D F)) + 6 L D (T + 1)      plain: weights used, then scores and values
            + f (6 L' 4 D^2 + 6 L' D (f T + 1))              meta-attention, at the meta rows only

        L blocks, L' of them with meta-attention, F the MLP's inner width, f = `meta_fraction`. A weight costs
        2 FLOPs forward and 4 backward; a query of causal attention sees (T + 1) / 2 keys on average.
        Look-ups, norms, elementwise work and positions are left out. A second attention over all tokens has f = 1.
        """
        c = self.config
        dense = c.meta_over == "all" or c.meta_fill is not None
        f = 1.0 if dense else meta_fraction
        second = sum(c.has_meta(layer) for layer in range(c.n_layers))
        plain = 6 * (c.vocab_size * c.d_model + c.n_layers * (4 * c.d_model**2 + 2 * c.d_model * c.mlp_dim))
        plain += 6 * c.n_layers * c.d_model * (T + 1)
        return plain + f * second * (24 * c.d_model**2 + 6 * c.d_model * (f * T + 1))

    def _plans(
        self,
        meta_mask_BT: Tensor | None,
        position_ids_BT: Tensor,
        document_ids_BT: Tensor | None,
        drop_positions: str,
        cache: KVCache | None,
        slots: MetaSlots | None,
        n_queries: int,
    ) -> tuple[AttentionPlan, AttentionPlan | None]:
        """What self-attention and the second attention may see in this forward pass."""
        config, device, x_dtype = self.config, position_ids_BT.device, self.embedding.weight.dtype
        keys_meta = meta_mask_BT if cache is None else cache.meta_mask_BK
        keys_ids = position_ids_BT if cache is None or cache.position_ids_BK is None else cache.position_ids_BK
        n_keys = n_queries if cache is None else cache.length
        allowed = None
        if n_keys > n_queries:
            allowed = masks.causal(n_queries, n_keys, device)
        elif document_ids_BT is not None:
            allowed = (masks.causal(n_queries, device=device) & masks.same_document(document_ids_BT))[:, None]

        def over_all(drop: bool, mask: Tensor | None) -> AttentionPlan:
            keep_BT = ~meta_mask_BT if drop and meta_mask_BT is not None else None
            keep_BK = ~keys_meta if drop and keys_meta is not None else None
            score = partial(self.positions.score, position_ids_BT=keys_ids, keep_BT=keep_BK)
            return AttentionPlan(
                self.positions,
                self.positions.prepare(position_ids_BT, keep_BT),
                score if self.positions.transforms_scores else None,
                mask,
            )

        plan = over_all(drop_positions in ("self_attention", "both"), allowed)
        if not config.meta_attention:
            return plan, None
        drop = drop_positions in ("meta_attention", "both")
        if config.meta_over == "all":
            return plan, over_all(drop, allowed)
        if config.meta_fill is not None:
            seen = masks.causal(n_queries, n_keys, device) if allowed is None else allowed
            if keys_meta is None:
                keys_meta = torch.zeros_like(position_ids_BT, dtype=torch.bool)
            soft = masks.meta_to_meta(keys_meta)[:, None, -n_queries:]
            return plan, over_all(drop, masks.additive(seen, soft, config.meta_fill, x_dtype))
        if meta_mask_BT is None or (slots is not None and not len(slots.slot_R)):
            return plan, None

        blocks = MetaBlocks.find(meta_mask_BT, document_ids_BT)
        ids_1R = blocks.gather(position_ids_BT.expand_as(meta_mask_BT))[None]
        score = None
        if self.positions.transforms_scores:
            ids = blocks.pad(ids_1R[0]) if cache is None else cache.meta_position_ids()
            keep = torch.zeros_like(ids, dtype=torch.bool) if drop else None
            score = partial(self.positions.score, position_ids_BT=ids, keep_BT=keep)
        keep_1R = torch.zeros_like(ids_1R, dtype=torch.bool) if drop else None
        rotation = self.positions.prepare(ids_1R, keep_1R)
        return plan, AttentionPlan(self.positions, rotation, score, blocks=blocks, slots=slots)
