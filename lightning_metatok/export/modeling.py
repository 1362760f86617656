"""A `MetaTransformer` as a causal language model of transformers: loads, generates, is evaluated like any other.

    import lightning_metatok.export                      # registers the class
    model = AutoModelForCausalLM.from_pretrained(DIR)
    model.generate(**tokenizer(prompts, return_tensors="pt", padding=True))

Tokens with an id of <|meta|> or of a further kind are meta-tokens. Padding is told by the attention mask, on either
side: padded tokens are a document of their own, which no other token sees.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from lightning_metatok.data.kinds import is_meta
from lightning_metatok.errors import UserError
from lightning_metatok.export.cache import CacheOfTransformers
from lightning_metatok.export.configuration import MODEL_TYPE, MetaTokConfig
from lightning_metatok.model.build import own

NOT_SCORED = -100


class MetaTokForCausalLM(PreTrainedModel, GenerationMixin):
    """A language model with learned meta-tokens."""

    config_class = MetaTokConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = False
    _supports_sdpa = True
    _can_compile_fullgraph = False
    _no_split_modules = ["Block"]  # noqa: RUF012  (as all classes of transformers have it)

    def __init__(self, config: MetaTokConfig) -> None:
        super().__init__(config)
        self.shape = config.build()
        self.model = own(self.shape, seed=0)
        self.post_init()

    @property
    def can_cache(self) -> bool:
        """Whether all axes can work with a Cache of transformers, which has rows for branches of blocks alone."""
        if self.model.between is not None or self.shape.built_recurrence.keeps is not None:
            return False
        try:
            self.shape.check_can("cache")
        except UserError:
            return False
        return True

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the transformer has drawn its weights, and a checkpoint holds all of them."""

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embedding

    def get_output_embeddings(self) -> nn.Module | None:
        return self.model.head

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the next token.

        Args:
            input_ids: [B, T]. attention_mask: [B, K], 0 at padding, K with the tokens in the cache.
            position_ids: [B, T]; None: 0, 1, 2, ... without padding. past_key_values: a Cache of transformers, which
                takes up these tokens. labels: [B, T], -100 where nothing is scored; shifted here. Meta-tokens are
                never scored.
            use_cache: make a Cache where none is given. logits_to_keep: how many of the last positions get logits,
                or which; 0: all.

        Returns:
            logits [B, T, V], the loss where there are labels, and the Cache.
        """
        if input_ids is None:
            raise ValueError("lightning_metatok reads input_ids: which tokens are meta-tokens, embeddings do not say")
        T = input_ids.shape[1]
        if past_key_values is None and use_cache and self.can_cache and not self.training:
            past_key_values = DynamicCache(config=self.config)
        extra_BT = is_meta(input_ids, self.config.meta_ids) if self.config.meta_ids else None
        keep_BK = None
        if attention_mask is not None and not bool(attention_mask.all()):
            keep_BK = attention_mask.bool()
            self.shape.check_can("documents")
            if position_ids is None:
                position_ids = (keep_BK.long().cumsum(dim=1) - 1).clamp(min=0)[:, -T:]
            if extra_BT is not None:
                extra_BT = extra_BT & keep_BK[:, -T:]
        cache = None
        if past_key_values is not None:
            cache = CacheOfTransformers(past_key_values, self.shape, keep_BK)
        elif extra_BT is not None and not bool(extra_BT.any()):
            extra_BT = None
        documents_BT = None if keep_BK is None or cache is not None else keep_BK.long()
        hidden_BTD = self.model(input_ids, extra_BT, position_ids, documents_BT, cache=cache, return_hidden=True)
        if cache is not None:
            c = self.shape
            cache.finish(hidden_BTD.new_zeros(len(input_ids), c.n_heads, T, c.head_dim))
        rows = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.model.logits(hidden_BTD[:, rows])
        return CausalLMOutputWithPast(
            loss=None if labels is None else self._loss(logits, labels), logits=logits, past_key_values=past_key_values
        )

    def _loss(self, logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
        if self.config.meta_ids:
            labels_BT = labels_BT.masked_fill(is_meta(labels_BT, self.config.meta_ids), NOT_SCORED)
        logits, labels = logits_BTV[:, :-1].float().flatten(0, 1), labels_BT[:, 1:].flatten()
        return F.cross_entropy(logits, labels.to(logits.device), ignore_index=NOT_SCORED)

    @staticmethod
    def create_masks_for_generate(attention_mask: Tensor | None = None, **others: Any) -> Tensor | None:
        """Return the mask of padding as it is: what may be seen follows from the pattern."""
        return attention_mask

    @torch.no_grad()
    def generate(self, *arguments: Any, **options: Any) -> Any:
        """Generate as transformers does, without a cache where an encoding or a pattern cannot have one."""
        if not self.can_cache and options.get("past_key_values") is None:
            options["use_cache"] = False
        return super().generate(*arguments, **options)  # type: ignore[misc]


AutoConfig.register(MODEL_TYPE, MetaTokConfig, exist_ok=True)
AutoModelForCausalLM.register(MetaTokConfig, MetaTokForCausalLM, exist_ok=True)
