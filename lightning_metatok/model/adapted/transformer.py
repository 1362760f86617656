"""A causal language model of transformers that gets meta-tokens: an embedding of theirs, a mechanism, a pattern.

    x = embedding of the base; at meta-tokens the learned one
    x = block of the base (x)         by the pattern, as a mask
    x = x + MetaAttention(LN(x))      what the mechanism adds, behind each block; zero at first
    logits of the base; <|meta|> has none that is learned

Whoever has a `MetaTransformer` has this: it is one, whose plain blocks are another model's. Checkpoints hold what is
trained; the base stays where it is.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_metatok.errors import UserError
from lightning_metatok.model import positions
from lightning_metatok.model.adapted.base import Base
from lightning_metatok.model.attention.plan import Forward, Plans
from lightning_metatok.model.block import Block, initialise
from lightning_metatok.model.branch import SELF_ATTENTION, Branch
from lightning_metatok.model.config import TransformerConfig
from lightning_metatok.model.start import Start
from lightning_metatok.model.transformer import MetaTransformer, separators_of
from lightning_metatok.model.unchanged import start_unchanged


class AdapterBlock(Block):
    """What a mechanism adds behind one block of the base."""

    def parts(self, config: TransformerConfig, layer: int) -> list[tuple[Branch, nn.Module]]:
        attention: Any = None  # another model's: there are no weights to lend
        return config.built_mechanism.branches(config, layer, attention)


class AdaptedTransformer(MetaTransformer):
    """A base of transformers and what is added to it."""

    def __init__(self, config: TransformerConfig, seed: int | None = None) -> None:
        """As `MetaTransformer`.

        Raises:
            UserError: the base cannot be loaded or adapted, or another axis cannot work with one.
        """
        nn.Module.__init__(self)
        start = Start.anew() if seed is None else Start(seed)
        self.config = config
        self.pattern, self.mechanism = config.built_pattern, config.built_mechanism
        self.dropping = None
        check(config)
        found = Base.load(config)
        self.base = found.model
        self._parts = (found,)  # in a tuple, where PyTorch does not take it for a part of this module
        self.positions = positions.build(
            config.position,
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            head_dim=config.head_dim,
            d_model=config.d_model,
            max_positions=config.max_positions,
            **config.position_options,
        )
        self.positions.max_positions = found.max_positions
        self.register_buffer("separators_V", separators_of(config))
        self.blocks = nn.ModuleList(AdapterBlock(config, layer) for layer in range(config.n_layers))
        self.between, self.head = None, None
        self.extra_D = nn.Parameter(found.embedding.weight.detach().mean(dim=0).clone())
        further = 0 if config.kinds_from is None else config.vocab_size - config.kinds_from
        self.kinds_KD = nn.Parameter(self.extra_D.detach().repeat(further, 1)) if further else None
        for name in ("blocks", "positions"):
            initialise(getattr(self, name), config.n_layers, start.under(name), config.init_std)
        start_unchanged(self)
        self._passing: tuple[list[Plans], Any] | None = None
        for i, block in enumerate(found.blocks):
            block.register_forward_hook(partial(self._behind, i))
        self._register_state_dict_hook(_without_base)
        self.register_load_state_dict_pre_hook(_with_base)

    @property
    def parts(self) -> Base:
        """Where the parts of the base are."""
        return self._parts[0]

    @property
    def embedding(self) -> nn.Embedding:  # type: ignore[override]
        """That of the base, without <|meta|>."""
        return self.parts.embedding

    @property
    def head_weight(self) -> Tensor:
        """The weight of the base's head; ids that the base has not have no row."""
        return self.parts.head.weight

    def hidden(self, tokens_BT: Tensor, forward: Forward, plans: list[Plans], *, zero_meta_embedding: bool) -> Tensor:
        base, cache = self.parts, forward.cache
        extra_BT = self.injected(tokens_BT, forward.extra_BT)
        position_ids_BT = forward.position_ids_BT.expand_as(tokens_BT)
        ids_BT = tokens_BT if extra_BT is None else tokens_BT.masked_fill(extra_BT, 0)
        x_BTD = base.embedding(ids_BT)
        if extra_BT is not None:
            own = torch.zeros_like(self.extra_D) if zero_meta_embedding else self._of_kinds(tokens_BT)
            x_BTD = torch.where(extra_BT.unsqueeze(-1), own, x_BTD)
        if (kept_BT := forward.kept_BT(SELF_ATTENTION.name)) is not None:
            if base.table is not None:  # which the decoder is about to add
                x_BTD = x_BTD - base.table(position_ids_BT).masked_fill(kept_BT.unsqueeze(-1), 0)
            elif base.rotates:
                position_ids_BT = position_ids_BT * kept_BT
            else:
                raise UserError(
                    f"model.base={self.config.base!r}: positions cannot be dropped in its attention, which neither "
                    "rotates nor has a table; expected model.drop_positions of the mechanism's branch, or none"
                )
        mask = None if forward.seen is None else forward.seen.mask
        if mask is not None:
            least = torch.finfo(x_BTD.dtype).min
            mask = torch.zeros(mask.shape, dtype=x_BTD.dtype, device=mask.device).masked_fill(~mask, least)
            mask = mask.expand(len(tokens_BT), -1, -1, -1)
        else:  # one that says that there is no padding: else transformers looks for documents in positions
            mask = torch.ones(len(tokens_BT), forward.n_keys, dtype=torch.long, device=x_BTD.device)
        if cache is not None and cache.beside is None:
            from transformers import DynamicCache

            cache.beside = DynamicCache(config=self.base.config)  # type: ignore[arg-type]
        self._passing = plans, cache
        try:
            found = base.decoder(
                inputs_embeds=x_BTD,
                attention_mask=mask,
                position_ids=position_ids_BT,
                past_key_values=None if cache is None else cache.beside,
                use_cache=cache is not None,
            )
        finally:
            self._passing = None
        hidden_BTD: Tensor = found.last_hidden_state
        return hidden_BTD

    def _of_kinds(self, tokens_BT: Tensor) -> Tensor:
        """The embedding of each meta-token, [B, T, D], or [D] where there is one kind; elsewhere any."""
        if self.kinds_KD is None or self.config.kinds_from is None:
            return self.extra_D
        kind_BT = (tokens_BT - self.config.kinds_from + 1).clamp(min=0)
        return nn.functional.embedding(kind_BT, torch.cat((self.extra_D[None], self.kinds_KD)))

    def _behind(self, layer: int, _: Any, __: Any, output: Any) -> Any:
        """What a block of the base returns, with what the mechanism adds."""
        if self._passing is None:  # somebody else asks the base
            return output
        plans, cache = self._passing
        memories = None if cache is None else cache.layers[layer]
        x_BTD = output[0] if isinstance(output, tuple) else output
        x_BTD = self.blocks[layer](x_BTD, plans=plans[layer], memories=memories)
        return (x_BTD, *output[1:]) if isinstance(output, tuple) else x_BTD

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V]; ids that the base has not, such as <|meta|>, are never likely."""
        known = self.parts.head(hidden)
        missing = self.config.vocab_size - known.shape[-1]
        return nn.functional.pad(known, (0, missing), value=torch.finfo(known.dtype).min) if missing > 0 else known

    def flops_per_token(self, T: int, meta_fraction: float = 0.0) -> float:
        """As `MetaTransformer`'s, from the weights of the base: 2 forward, 2 for gradients of states, 2 of its own."""
        c, base = self.config, self.parts
        tables = {id(module.weight) for module in (base.embedding, base.table) if module is not None}
        weights = [p for p in self.base.parameters() if p.ndim > 1 and id(p) not in tables]
        counted = sum(p.numel() * (6 if p.requires_grad else 4) for p in weights)
        if id(base.head.weight) in tables:
            counted += base.head.weight.numel() * (6 if base.head.weight.requires_grad else 4)
        seen = c.n_layers * self.pattern.mean_keys(T, meta_fraction)
        return counted + 12 * c.d_model * seen + self.mechanism.flops_per_token(c, T, meta_fraction)


def check(config: TransformerConfig) -> None:
    """Raise `UserError` for what cannot work with a base."""
    expected = "with model.base expected"
    kind = positions.AXIS.find(config.position)
    mechanism, pattern = config.built_mechanism, config.built_pattern
    varies = any(pattern.at(layer, config.n_layers) is not pattern for layer in range(config.n_layers))
    for wrong, key, value, what in (
        (kind.embeds, "position", config.position, "one that the mechanism's own attention can use, such as 'rotary'"),
        (kind.needs_task_ids, "position", config.position, "one without ids of a task"),
        (
            mechanism.transforms_scores,
            "mechanism",
            config.mechanism,
            "one that adds branches, as scores are the base's",
        ),
        (
            bool(mechanism.parts_of_attention),
            "mechanism",
            config.mechanism,
            "one that adds branches, as self-attention is the base's",
        ),
        (mechanism.between(config) is not None, "mechanism", config.mechanism, "one that adds branches to blocks"),
        (
            mechanism.follows_steps,
            "mechanism_options.anneal",
            getattr(mechanism, "anneal", None),
            "none, as a base lends no weights",
        ),
        (getattr(mechanism, "shared", False), "mechanism_options.shared", True, "false, as a base lends no weights"),
        (config.shared_layers, "shared_layers", True, "false"),
        (not pattern.causal, "pattern", config.pattern, "a causal pattern, as the base is"),
        (config.norm == "post", "norm", "post", "'pre'"),
        (config.parallel, "parallel", True, "false"),
        (config.recurrence != "none", "recurrence", config.recurrence, "'none', as the blocks are the base's"),
        (config.denominator != "sum", "denominator", config.denominator, "'sum', as self-attention is the base's"),
        (config.drop_from is not None, "drop_from", config.drop_from, "none, as positions of text are the base's"),
        (config.drop_at != "extra", "drop_at", config.drop_at, "'extra', as positions of text are the base's"),
        (config.gate != "none", "gate", config.gate, "'none', as self-attention is the base's"),
        (varies, "pattern", config.pattern, "one that is the same in all layers"),
    ):
        if wrong:
            raise UserError(f"model.{key}={value!r}: {expected} {what}")


def _without_base(module: AdaptedTransformer, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Leave what is not trained to the base, and say tied weights once."""
    own = {f"{prefix}base.{name}" for name, weight in module.base.named_parameters() if weight.requires_grad}
    for key in [key for key in state if key.startswith(f"{prefix}base.") and key not in own]:
        del state[key]


def _with_base(module: AdaptedTransformer, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give back what `_without_base` left out, so that nothing is missing."""
    given = {name: state.get(f"{prefix}base.{name}") for name, _ in module.base.named_parameters()}
    by_tensor = {id(weight): given[name] for name, weight in module.base.named_parameters()}
    for name, weight in module.base.state_dict(keep_vars=True).items():
        found = by_tensor.get(id(weight))
        state.setdefault(f"{prefix}base.{name}", weight.detach() if found is None else found)
