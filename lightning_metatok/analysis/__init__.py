"""Pure functions of arrays that say what a model does, or what it must beat. Nothing here knows a model or a corpus."""

from lightning_metatok.analysis.bigram import Bigram, fit_bigram

__all__ = ["Bigram", "fit_bigram"]
