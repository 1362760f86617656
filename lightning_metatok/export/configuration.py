"""The config.json of a model that only this package can build: a `TransformerConfig` under the key `transformer`.

Beside it stand the names under which tools of Hugging Face look for sizes, the ids of meta-tokens, and where they stood
in training.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from transformers import PreTrainedConfig

from lightning_metatok.errors import UserError
from lightning_metatok.export.cache import CacheLayout
from lightning_metatok.model import TransformerConfig
from lightning_metatok.registry import foreign_names

MODEL_TYPE = "lightning_metatok"
AXES = ("position", "pattern", "mechanism", "recurrence")


class MetaTokConfig(PreTrainedConfig):
    """What `MetaTokForCausalLM` is built from.

    Args:
        transformer: the fields of `TransformerConfig`.
        meta_token_id: id of <|meta|>; None: the vocabulary has none.
        meta_token_ids: ids of all kinds of meta-tokens, in turn, where there are several.
        marks: where meta-tokens stood in training, ``{"fraction": 0.1, "placement": "random"}``; None: nobody says.
        trust_classes: build a model that names classes of other packages; never saved.
    """

    model_type = MODEL_TYPE
    keys_to_ignore_at_inference = ("past_key_values",)

    def __init__(
        self,
        transformer: Mapping[str, Any] | None = None,
        meta_token_id: int | None = None,
        marks: Mapping[str, Any] | None = None,
        trust_classes: bool = False,
        meta_token_ids: Sequence[int] | None = None,
        **others: Any,
    ) -> None:
        self.transformer = dict(transformer or {})
        self.meta_token_id = meta_token_id
        if meta_token_ids is not None:  # else config.json stays as it was
            self.meta_token_ids = list(meta_token_ids)
        self.marks = None if marks is None else dict(marks)
        self.trust_classes = trust_classes
        sizes = {
            "vocab_size": "vocab_size",
            "hidden_size": "d_model",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "max_position_embeddings": "max_positions",
        }
        for theirs, ours in sizes.items():
            others.pop(theirs, None)
            setattr(self, theirs, self.transformer.get(ours))
        # The model itself uses its embedding as a head; there is no second module to be tied.
        super().__init__(**{**others, "tie_word_embeddings": False})

    @property
    def meta_ids(self) -> tuple[int, ...]:
        """Ids of all kinds of meta-tokens; none where the vocabulary has none."""
        only = () if self.meta_token_id is None else (self.meta_token_id,)
        return tuple(getattr(self, "meta_token_ids", only))

    @classmethod
    def of(cls, config: TransformerConfig, **others: Any) -> "MetaTokConfig":
        """Return the one of a model of this shape."""
        return cls(transformer=asdict(config), architectures=["MetaTokForCausalLM"], **others)

    def build(self) -> TransformerConfig:
        """Return the shape of the model.

        Raises:
            UserError: it is none, or it names classes of other packages and nobody said that they are trusted.
        """
        named = [n for key in AXES for n in foreign_names(f"model.{key}", self.transformer.get(key))]
        if named and not self.trust_classes:
            raise UserError(
                f"config.json: expected a model of lightning_metatok's own classes, and it names {', '.join(named)}, "
                "which would be imported and run; from_pretrained(..., trust_classes=True) allows it"
            )
        known = {field.name for field in fields(TransformerConfig)}
        if unknown := sorted(self.transformer.keys() - known):
            raise UserError(f"config.json: transformer has no {unknown[0]!r}; a newer lightning_metatok may have it")
        return TransformerConfig(**self.transformer)

    def to_dict(self) -> dict[str, Any]:
        """Return what is saved."""
        content: dict[str, Any] = super().to_dict()
        content.pop("trust_classes", None)
        return content

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> "MetaTokConfig":
        """Return this; for a decoder, which caches are made for, with as many layers as a cache needs."""
        if not decoder or not self.transformer:
            return self
        view = copy.copy(self)
        view.num_hidden_layers = CacheLayout.of(self.build()).n
        return view
