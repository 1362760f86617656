"""What a boost of some keys' logits does to the entropy of attention: the sharpening theorem, with its condition.

    alpha_t(j) ∝ exp(z_j + t [j in S])        a_t: the mass of S,  logit(a_t) = logit(a_0) + t
    H(alpha_t) = h(a_t) + a_t H_S + (1 - a_t) H_rest            h: entropy of a coin; H_S, H_rest do not depend on t
    dH/dt      = a_t (1 - a_t) (turning_boost - t)              turning_boost = -logit(a_0) + H_S - H_rest

So entropy rises up to a boost of `turning_boost` and falls from there on; it falls at once where that is negative. For
one key j this reads dH/dt = -alpha_j (log alpha_j + H) at t = 0, and falls at once where alpha_j > exp(-H). The paper
states the theorem (arXiv 2509.16278, theorem 4.1) without the condition; (0.9, 0.1) with ln 9 at the second key is a
counterexample. Proof and pictures: docs/theory.md.

Everywhere: `logits` [..., K], -inf where a key may not be seen; `index` an int or int64 [...], the key of each row, or
bool [..., K], a set of keys. Entropies, boosts and margins in nats.
"""

import torch
from torch import Tensor


def boosted_attention(logits: Tensor, index: int | Tensor, boost: float | Tensor) -> Tensor:
    """Return softmax(logits + boost at the keys of `index`), [..., K]; `boost` [...] or a number."""
    boost = torch.as_tensor(boost, dtype=logits.dtype, device=logits.device)
    return torch.where(chosen_keys(logits, index), logits + boost.unsqueeze(-1), logits).softmax(dim=-1)


def attention_entropy(p: Tensor) -> Tensor:
    """Return the entropy of the last dimension of `p`, in nats, [...].

    0 log 0 = 0, and its gradient counts as 0: what a masked key adds to the gradient of its row's logits.
    """
    return -(p * torch.where(p > 0, p, torch.ones_like(p)).log()).sum(dim=-1)


def entropy_slope(logits: Tensor, index: int | Tensor) -> Tensor:
    """Return dH/dboost at a boost of 0, [...]: -alpha_j (log alpha_j + H) for one key j.

    0 where no key of `index` is seen, or no other: nothing can move then.
    """
    log_inside, log_outside, turning = _parts(logits, index)
    mass_in_play = (log_inside + log_outside).exp()
    return torch.where(mass_in_play > 0, mass_in_play * turning, torch.zeros_like(mass_in_play))


def turning_boost(logits: Tensor, index: int | Tensor) -> Tensor:
    """Return the boost from which on more of it lowers entropy, in nats, [...]; below it, more raises entropy.

    Negative where any boost lowers entropy. inf where none of the keys of `index` is seen, -inf where no other is.
    """
    return _parts(logits, index)[2]


def sharpens(logits: Tensor, index: int | Tensor) -> Tensor:
    """Return whether any boost lowers entropy, bool [...]: for one key j, alpha_j > exp(-H).

    Strictly: at a uniform row the slope is 0 and a boost lowers entropy too, but rounding decides here.
    """
    return turning_boost(logits, index) < 0


def entropy_without(logits: Tensor, index: int | Tensor) -> Tensor:
    """Return the entropy of the other keys' attention among themselves, in nats, [...]; 0 where no other is seen."""
    hidden = logits.masked_fill(chosen_keys(logits, index), -torch.inf)
    return attention_entropy(hidden.softmax(dim=-1).nan_to_num(0.0))  # a softmax over no key is NaN


def log_odds(logits: Tensor, index: int | Tensor) -> Tensor:
    """Return log a / (1 - a), a being the attention to the keys of `index`, [...]: a boost adds itself to it."""
    log_inside, log_outside, _ = _parts(logits, index)
    return log_inside - log_outside


def chosen_keys(logits: Tensor, index: int | Tensor) -> Tensor:
    """Return `index` as bool [..., K]."""
    index = torch.as_tensor(index, device=logits.device)
    if index.dtype == torch.bool:
        return index
    return torch.arange(logits.shape[-1], device=logits.device) == index.unsqueeze(-1)


def _parts(logits: Tensor, index: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log a, log (1 - a) and the turning boost, [...] each."""
    chosen = chosen_keys(logits, index)
    total = logits.logsumexp(dim=-1)
    log_inside, log_outside = (logits.masked_fill(part, -torch.inf).logsumexp(-1) - total for part in (~chosen, chosen))
    entropies = entropy_without(logits, ~chosen), entropy_without(logits, chosen)
    return log_inside, log_outside, log_outside - log_inside + entropies[0] - entropies[1]
