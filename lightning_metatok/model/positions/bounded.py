"""Trained parameters that may not leave a range, and can come back into it.

torch's clamp gives a value outside the gradient 0: what an optimiser once moved there, or what was drawn there, stays
for ever. Here the value is clamped and the gradient is passed straight through (Bengio et al. 2013, arXiv 1308.3432):
it is that at the bound.
"""

from torch import Tensor


def bounded(parameter: Tensor, least: float | None = None, most: float | None = None) -> Tensor:
    """Return `parameter` clamped to [least, most], of the same shape; its gradient is as if nothing was clamped."""
    # Exact: what is added is 0.
    return parameter.detach().clamp(least, most) + (parameter - parameter.detach())
