"""What attention does with some tokens, in a number each, so that it can be followed through training."""

import torch
from torch import Tensor

from lightning_metatok.analysis.sharpening import attention_entropy


def mean_entropy(probs_BNTT: Tensor, rows_BT: Tensor) -> Tensor:
    """Return the mean entropy of the rows chosen, over heads, in nats; what of a row goes nowhere does not count."""
    return attention_entropy(probs_BNTT).transpose(1, 2)[rows_BT].mean()


def mass_on(probs_BNTT: Tensor, keys_BT: Tensor, rows_BT: Tensor) -> Tensor:
    """Return which part of their attention the rows chosen give to some keys, the mean over rows and heads."""
    on_BNT = (probs_BNTT * keys_BT[:, None, None, :]).sum(dim=-1)
    return on_BNT.transpose(1, 2)[rows_BT].mean()


def logit_boost(scores_BNTT: Tensor, keys_BT: Tensor, rows_BT: Tensor) -> Tensor:
    """Return by how much the mean score of some keys is above that of all others in sight, in nats.

    The mean over heads and over the rows chosen that see both; NaN where none does.
    """
    seen_BNTT = ~scores_BNTT.isneginf()
    scores_BNTT = scores_BNTT.masked_fill(~seen_BNTT, 0)
    means, both = [], rows_BT[:, None].expand(scores_BNTT.shape[:3]).clone()
    for chosen_BT in (keys_BT, ~keys_BT):
        at_BNTT = seen_BNTT & chosen_BT[:, None, None, :]
        n_BNT = at_BNTT.sum(dim=-1)
        both &= n_BNT > 0
        means.append((scores_BNTT * at_BNTT).sum(dim=-1) / n_BNT.clamp(min=1))
    return (means[0] - means[1])[both].mean()


def effective_rank(states_RD: Tensor) -> Tensor:
    """Return the effective rank of R states about their mean: exp of the entropy of their singular values.

    1 where all differ in one direction, min(R - 1, D) where no direction stands out. Roy and Vetterli 2007.
    """
    sizes = torch.linalg.svdvals((states_RD - states_RD.mean(dim=0)).double())
    shares = sizes / sizes.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return attention_entropy(shares).exp()
