"""Effective length: the longest context at which a model still does about as well as at the trained one.

    context     1x     2x     4x     8x
    nats       3.10   3.12   3.20   3.60       at most 3.10 - ln .85 = 3.26: effective length 4x

The score of a loss is exp(-nats), the probability of a source token (geometric mean): 85 % of it is a loss 0.163 nats
above the base. A share of right answers is a score itself. Source: Modarressi et al. 2025 (NoLiMa), where 85 % of a
model's own base score is the threshold, too.
"""

import math
from collections.abc import Mapping

KEPT_SHARE = 0.85
"""Of the score at the trained length."""


def effective_length(values: Mapping[float, float], *, is_loss: bool) -> float | None:
    """Return the longest length up to which every measured length keeps `KEPT_SHARE` of the base score.

    Args:
        values: length, times the trained one, to loss in nats or share of right answers. The base is 1, else the
            shortest length.
        is_loss: whether they are losses.

    Returns:
        A key of `values`; None without a finite base, or where nothing is right at the base.
    """
    base = 1.0 if 1.0 in values else min(values, default=math.nan)
    first = values.get(base, math.nan)
    if not math.isfinite(first) or (not is_loss and first <= 0):
        return None
    kept = base
    for length in sorted(length for length in values if length > base):
        value = values[length]
        keeps = value <= first - math.log(KEPT_SHARE) if is_loss else value >= KEPT_SHARE * first
        if not keeps:  # a NaN keeps nothing
            break
        kept = length
    return kept
