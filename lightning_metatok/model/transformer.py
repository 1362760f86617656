"""The language model: GPT-2 with a mechanism for its meta-tokens (arXiv 2509.16278, section 3 and appendix A).

    tokens -> embedding (+ positions) -> dropout -> blocks -> norm -> head -> logits

What is a choice of the config is not known here by name: positions, pattern and mechanism are asked, and
`attention.plan` joins what they say.

Shape letters: B batch, T positions, K positions with those in the cache, N heads, H head dim, D model dim,
V vocabulary.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_metatok.errors import UserError
from lightning_metatok.model import positions
from lightning_metatok.model.attention import patterns, plan
from lightning_metatok.model.attention.meta import BlockLengths
from lightning_metatok.model.attention.reach import Reach, reach
from lightning_metatok.model.block import Block, initialise, norm_of
from lightning_metatok.model.branch import EMBEDDING, SELF_ATTENTION
from lightning_metatok.model.cache import KVCache
from lightning_metatok.model.config import DROP_NOWHERE, TransformerConfig
from lightning_metatok.model.dropping import Dropping
from lightning_metatok.model.extra_position import places_of
from lightning_metatok.model.start import Start


class MetaTransformer(nn.Module):
    """A decoder-only transformer, as `config` says."""

    separators_V: Tensor | None
    """Bool: ids of text that are extra tokens to its attentions; None: no text is."""

    def __init__(self, config: TransformerConfig, seed: int | None = None) -> None:
        """`seed`: what the weights begin with (`model.start`); None: the next number of torch's generator."""
        super().__init__()
        start = Start.anew() if seed is None else Start(seed)  # before any module draws
        self.config = config
        self.pattern, self.mechanism = config.built_pattern, config.built_mechanism
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
        self.between = self.mechanism.between(config)
        if (longest := self.mechanism.longest(config)) is not None:
            self.positions.max_positions = min(longest, self.positions.max_positions or longest)
        self.register_buffer("separators_V", separators_of(config))
        self.dropping = None if config.drop_from is None else Dropping(config.drop_from)
        # After post-norm blocks the stream is normed already.
        pre_norm = config.norm == "pre"
        self.norm = norm_of(config) if pre_norm else nn.Identity()
        self.head = None if config.tied_head else nn.Linear(config.d_model, config.vocab_size, bias=False)
        initialise(self, config.n_layers, start, config.init_std)
        if config.kinds_from is None:
            self.positions.initialise_tokens(self.embedding.weight, start)
        else:
            self._draw_tokens(start, config.kinds_from)

    def _draw_tokens(self, start: Start, first: int) -> None:
        """Draw the rows below id `first` as a vocabulary of so many has them, and those from there on apart."""
        tables = {name: table for name in ("embedding", "head") if (table := getattr(self, name)) is not None}
        for rows, begins in ((slice(first), start), (slice(first, None), start.under("kinds"))):
            for name, table in tables.items():
                begins.under(name)("weight", table.weight[rows], nn.init.normal_, std=self.config.init_std)
            self.positions.initialise_tokens(self.embedding.weight[rows], begins)

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
        """Logits of the next token at every position.

        Args:
            tokens_BT: token ids. meta_mask_BT: bool, True at meta-tokens; None: there are none.
            position_ids_BT: positions; None: 0, 1, 2, ... going on where the cache stands. document_ids_BT:
            document of each token; tokens see their own document only. None: one a sample. drop_positions:
            where positions of meta slots are dropped, instead of what the config says. zero_meta_embedding:
            meta-tokens enter with a token embedding of zeros; positions are added as ever. cache: earlier
            tokens of the same sequences; takes up these. Not together with documents. extra_lengths: meta-tokens
            of each sample, or of each of its documents where these are given; None: the device is asked.
            return_hidden: return the normed hidden states [B, T, D] that `logits` takes, for a caller that needs logits
            at some positions only.

        Returns:
            logits_BTV.

        Raises:
            UserError: a learned table has too few positions, `drop_positions` is no choice, the positional encoding
                cannot work with a cache or with documents, or a prompt comes in pieces that the pattern reads in both
                directions.
        """
        config, past = self.config, 0 if cache is None else cache.length
        assert cache is None or document_ids_BT is None, "a cache holds one document a sample"
        if cache is not None:
            config.check_can("cache")
            config.check_writes()
        if document_ids_BT is not None:
            config.check_can("documents")
        assert meta_mask_BT is None or meta_mask_BT.shape == tokens_BT.shape, "one mask entry a token"
        if drop_positions is None:
            kept = self.dropping is not None and not self.dropping.now
            drop_positions = DROP_NOWHERE if kept else config.drop_positions
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
        if self.separators_V is not None:
            own_BT, extra_lengths = self.separators_V[tokens_BT], None
            meta_mask_BT = own_BT if meta_mask_BT is None else meta_mask_BT | own_BT
        extra_BT = torch.zeros_like(tokens_BT, dtype=torch.bool) if meta_mask_BT is None else meta_mask_BT
        if config.extra_position != "own":
            before_B1 = None if cache is None else cache.extra_before_B1
            position_ids_BT = places_of(
                config.extra_position, position_ids_BT, extra_BT, document_ids_BT, before_B1=before_B1
            )
        if cache is not None:
            if self.pattern.prompts and cache.closes_prompt(extra_BT):
                raise UserError(
                    f"model.pattern={config.pattern!r}: the first meta-token closes a prompt that sees all of itself, "
                    "and text before it was read already; expected both in one pass"
                )
            cache.advance(extra_BT, position_ids_BT)

        # First, so that torch.compile breaks its graph here, where no activation is alive yet.
        forward = plan.Forward(
            self.positions,
            self.pattern,
            meta_mask_BT,
            position_ids_BT,
            document_ids_BT,
            drop_positions,
            self.embedding.weight.dtype,
            tokens_BT.shape[1],
            cache,
            extra_lengths,
            config.drop_at,
        )
        plans = plan.build(forward, self.mechanism, config.n_layers)
        hidden_BTD = self.hidden(tokens_BT, forward, plans, zero_meta_embedding=zero_meta_embedding)
        return hidden_BTD if return_hidden else self.logits(hidden_BTD)

    def hidden(
        self, tokens_BT: Tensor, forward: plan.Forward, plans: list[plan.Plans], *, zero_meta_embedding: bool
    ) -> Tensor:
        """The normed hidden states [B, T, D] behind all blocks, which work by their `plans`."""
        config, cache = self.config, forward.cache
        x_BTD = self.embedded(tokens_BT, self.injected(tokens_BT, forward.extra_BT), zero_extra=zero_meta_embedding)
        if (embedded := self.positions.embed(forward.position_ids_BT, forward.kept_BT(EMBEDDING))) is not None:
            x_BTD = x_BTD + embedded.to(x_BTD.dtype)
        x_BTD = self.dropout(x_BTD)
        states = [] if self.between is None else [x_BTD]
        for i in range(config.n_layers):
            block = self.blocks[i % config.n_blocks]
            memories = None if cache is None else cache.layers[i]
            if config.activation_checkpointing and self.training and torch.is_grad_enabled():
                x_BTD = checkpoint(
                    block, x_BTD, plans=plans[i], use_reentrant=False, preserve_rng_state=config.dropout > 0
                )
            else:
                x_BTD = block(x_BTD, plans=plans[i], memories=memories)
            if self.between is not None:
                states.append(x_BTD)
                x_BTD = self.between(states, layer=i, plans=plans[i], memories=memories)
        hidden_BTD: Tensor = self.norm(x_BTD)
        return hidden_BTD

    def embedded(self, tokens_BT: Tensor, extra_BT: Tensor | None, *, zero_extra: bool) -> Tensor:
        """What enters for each token, [B, T, D], before its position does."""
        x_BTD: Tensor = self.embedding(tokens_BT)
        if self.positions.token_scale != 1:
            x_BTD = x_BTD * self.positions.token_scale
        if zero_extra and extra_BT is not None:
            x_BTD = x_BTD.masked_fill(extra_BT.unsqueeze(-1), 0)
        return x_BTD

    def know_separators(self, ids: Sequence[int]) -> None:
        """Take which token ids `model.separators` stands for; a checkpoint holds them."""
        if self.separators_V is not None:
            self.separators_V.zero_()[list(ids)] = True

    def injected(self, tokens_BT: Tensor, extra_BT: Tensor | None) -> Tensor | None:
        """Extra tokens that are none of the text."""
        if extra_BT is None or self.separators_V is None:
            return extra_BT
        return extra_BT & ~self.separators_V[tokens_BT]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] of hidden states [..., D] that `forward` returned."""
        return nn.functional.linear(hidden, self.head_weight)

    @property
    def head_weight(self) -> Tensor:
        """The weight [V, D] of the head, which may be that of the embedding."""
        weight = self.embedding.weight if self.head is None else self.head.weight
        return weight

    def check_length(self, n_positions: int) -> None:
        """Raise `UserError` when the positional encoding has no place for so long a sequence."""
        limit = self.positions.max_positions
        if limit is not None and n_positions > limit and self.mechanism.longest(self.config) is not None:
            raise UserError(
                f"T={n_positions} is larger than model.max_positions={limit}: model.mechanism="
                f"{self.config.mechanism!r} has weights for so many positions alone; train with a larger one"
            )
        if limit is not None and n_positions > limit:
            start = self.config.max_positions - limit
            less = f"{limit}" if not start else f"{limit + start}, less position_options.start={start}"
            raise UserError(
                f"T={n_positions} is larger than model.max_positions={less}: a position table cannot grow; "
                "train with a larger model.max_positions or with positions that have no table (model.position)"
            )

    def rules(self) -> list[list[patterns.Pattern]]:
        """What the attentions of each layer let see, in the order of its branches (`attention.reach`)."""
        seen = (self.pattern.at(layer, self.config.n_layers) for layer in range(self.config.n_layers))
        return [[pattern, *self.mechanism.rules(layer, pattern)] for layer, pattern in enumerate(seen)]

    def reach(self, extra_T: Tensor) -> Reach:
        """How far back the last source token of a block depends on text; `extra_T`: bool, its extra tokens."""
        return reach(self.rules(), extra_T)

    @property
    def follows_steps(self) -> bool:
        """Whether something changes by itself from step to step of training."""
        return self.mechanism.follows_steps or self.dropping is not None

    def at_step(self, step: int) -> None:
        """Set what changes by itself from step to step of training to what it is in this one, counted from 0."""
        for module in self.modules():
            if (follow := getattr(module, "at_step", None)) is not None and module is not self:
                follow(step)

    def n_parameters(self) -> int:
        """Number of parameters, a tied head counted once."""
        return sum(p.numel() for p in self.parameters())

    def weights_of_mechanism(self) -> dict[str, tuple[str, int | None]]:
        """Weights that only its mechanism has: name -> what it is called, and in which block (None: between them)."""
        found: dict[str, tuple[str, int | None]] = {}
        for i, block in enumerate(self.blocks):
            for branch in (branch for branch in cast(Block, block).branches if branch.added):
                prefixes = tuple(f"blocks.{i}.{part}." for part in (branch.norm, branch.module))
                found |= {name: (branch.label, i) for name in self.state_dict() if name.startswith(prefixes)}
            for part, label in self.mechanism.parts_of_attention.items():
                owned = f"blocks.{i}.{SELF_ATTENTION.module}.{part}"
                found |= {name: (label, i) for name in self.state_dict() if f"{name}.".startswith(f"{owned}.")}
        label = f"{self.config.mechanism} between blocks"
        return found | {name: (label, None) for name in self.state_dict() if name.startswith("between.")}

    def rows_per_token(self, T: int) -> float:
        """Positions that the blocks work on, for each one of a sequence of length T."""
        return 1.0

    def flops_per_token(self, T: int, meta_fraction: float = 0.0) -> float:
        """Training FLOPs (forward and backward) a position of a sequence of length T, meta-tokens among them.

            6 (V D + L (4 D^2 + 2 D F)) + 12 D sum K      plain: weights used, then scores and values; less where heads
                                                          share keys, 3 D F with swiglu
            + what the mechanism adds

        L blocks, F the MLP's inner width, K keys that the pattern lets a query of a layer see on average, (T + 1) / 2
        if it is all of those before it. A weight costs 2 FLOPs forward and 4 backward. Look-ups, norms, elementwise
        work and positions are left out.
        """
        c = self.config
        plain = 6 * (c.vocab_size * c.d_model + c.n_layers * c.n_block_weights)
        layers = (self.pattern.at(layer, c.n_layers) for layer in range(c.n_layers))
        seen = sum(pattern.mean_keys(T, meta_fraction) for pattern in layers)
        return plain + 12 * c.d_model * seen + self.mechanism.flops_per_token(c, T, meta_fraction)


def separators_of(config: TransformerConfig) -> Tensor | None:
    """The table of ids that `model.separators` stands for, which a tokenizer fills; None: there are none."""
    return torch.zeros(config.vocab_size, dtype=torch.bool) if config.separators else None
