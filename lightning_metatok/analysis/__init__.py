"""Pure functions of arrays that say what a model does, or what it must beat. Nothing here knows a model or a corpus.

What needs torch is imported when it is first asked for: `compare` and `sweep` take their intervals from here, and start
without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightning_metatok.analysis.bigram import Bigram, fit_bigram

if TYPE_CHECKING:
    from lightning_metatok.analysis.bottleneck import gaussian_kl
    from lightning_metatok.analysis.information import Information, contrasted_information, probed_information
    from lightning_metatok.analysis.rate_distortion import RateDistortion, rate_distortion_curve
    from lightning_metatok.analysis.sharpening import (
        attention_entropy,
        boosted_attention,
        entropy_slope,
        entropy_without,
        log_odds,
        sharpens,
        turning_boost,
    )

__all__ = [
    "Bigram",
    "Information",
    "RateDistortion",
    "attention_entropy",
    "boosted_attention",
    "contrasted_information",
    "entropy_slope",
    "entropy_without",
    "fit_bigram",
    "gaussian_kl",
    "log_odds",
    "probed_information",
    "rate_distortion_curve",
    "sharpens",
    "turning_boost",
]

_WITH_TORCH = {
    "bottleneck": ("gaussian_kl",),
    "information": ("Information", "contrasted_information", "probed_information"),
    "rate_distortion": ("RateDistortion", "rate_distortion_curve"),
    "sharpening": (
        "attention_entropy",
        "boosted_attention",
        "entropy_slope",
        "entropy_without",
        "log_odds",
        "sharpens",
        "turning_boost",
    ),
}


def __getattr__(name: str) -> Any:
    for module, names in _WITH_TORCH.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
