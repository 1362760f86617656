"""The one place where a model is built from its configuration: an own one, or one with a base."""

from lightning_metatok.model.config import TransformerConfig
from lightning_metatok.model.transformer import MetaTransformer


def build(config: TransformerConfig, seed: int | None = None) -> MetaTransformer:
    """Return the transformer that `config` describes; `seed` as for `MetaTransformer`.

    Raises:
        UserError: its base cannot be loaded or adapted.
    """
    if config.base is None:
        return own(config, seed)
    from lightning_metatok.model.adapted import AdaptedTransformer  # transformers behind it, seconds to import

    return AdaptedTransformer(config, seed)


def own(config: TransformerConfig, seed: int | None = None) -> MetaTransformer:
    """Return a transformer of this package's own blocks, whatever the base; it may lie on the meta device."""
    return config.built_recurrence.kind()(config, seed)
