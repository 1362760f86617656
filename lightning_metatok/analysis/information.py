"""How many nats a state carries about something else, at least: two estimates that know nothing of bottlenecks.

    probing      I(h; y) >= H(y) - E[-log q(y | h)]                       q: a multinomial logistic regression
    contrast     I(x; h) >= E[f(x_i, h_i) - log 1/K sum_j exp f(x_i, h_j)]   <= log K, whatever is to be told

Both hold for any q and any f that is fixed before it is measured, so both are measured on held-out examples; a better q
or f makes them tighter. H(y) is the entropy of the label's frequencies among the same examples, which is below the true
one on average. Contrast cannot say more than log K nats, K being the number of held-out examples told apart.

Sources: Pimentel et al. 2020, "Information-theoretic probing for linguistic structure"; van den Oord et al. 2018,
"Representation learning with contrastive predictive coding"; Poole et al. 2019, "On variational bounds of mutual
information". Examples N; folds F; widths D and E; scikit-learn fits the regressions.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lightning_metatok.analysis.folds import Share, shares
from lightning_metatok.analysis.statistics import Difference, paired_bootstrap

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
"""scikit-learn's C, the inverse of the penalty; what stops a fold chooses."""

HIDDEN, CODE, BATCH, LEARNING_RATE = 64, 16, 128, 2e-3
"""Of the critic: f(x, h) is the product of two codes, each from a perceptron with one hidden layer."""

CHECK_EVERY, PATIENCE = 25, 8
"""Steps between two looks at the stopping examples; looks without a gain until training ends."""


@dataclass(frozen=True)
class Information:
    """A lower bound on mutual information, in nats.

    Attributes:
        values_N: what each example adds when it was held out; their mean is the estimate.
        limit: what the estimate cannot exceed: H(y), or log K.
    """

    values_N: NDArray[np.float64]
    limit: float

    def estimate(self, confidence: float = 0.95) -> Difference:
        """Mean and bootstrap interval over examples; it may be below 0 where nothing is known."""
        return paired_bootstrap(self.values_N, np.zeros_like(self.values_N), confidence)


def probed_information(
    states_ND: ArrayLike,
    labels_N: ArrayLike,
    *,
    folds: int = 5,
    seed: int = 0,
) -> Information:
    """Return how much of `labels_N` (ints from 0) a logistic regression can tell from `states_ND`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    states, labels = np.asarray(states_ND, dtype=np.float64), np.asarray(labels_N, dtype=np.int64)
    n_classes = int(labels.max()) + 1
    train_on, stop_by, hold_out = shares(len(states), folds, torch.Generator().manual_seed(seed))
    nll_N = np.full(len(states), np.nan)
    for fold in range(folds):
        seen, stop, held = (share.of(fold) for share in (train_on, stop_by, hold_out))
        scaler = StandardScaler().fit(states[seen])
        counts = np.bincount(labels[seen], minlength=n_classes)
        best = math.inf
        for strength in STRENGTHS if np.count_nonzero(counts) > 1 else ():
            probe = LogisticRegression(C=strength, max_iter=300).fit(scaler.transform(states[seen]), labels[seen])
            found = [
                _nll(probe.predict_proba(scaler.transform(states[rows])), probe.classes_, counts, labels[rows])
                for rows in (stop, held)
            ]
            if found[0].mean() < best:
                best, nll_N[held] = found[0].mean(), found[1]
        if best == math.inf:
            nll_N[held] = _nll(np.ones((len(held), 1)), counts.nonzero()[0], counts, labels[held])
    shares_of_classes = np.bincount(labels) / len(labels)
    surprise_N = -np.log(shares_of_classes[labels])
    return Information(surprise_N - nll_N, float(surprise_N.mean()))


def _nll(
    probs_NC: NDArray[np.float64], classes_C: NDArray[np.int64], counts: NDArray[np.int64], labels_N: NDArray[np.int64]
) -> NDArray[np.float64]:
    """-log q(label): the probe's, mixed with smoothed frequencies as if they were one example more.

    A class that no training example has would cost infinitely many nats otherwise.
    """
    frequencies = (counts + 0.5) / (counts + 0.5).sum()
    whole = np.zeros((len(probs_NC), len(counts)))
    whole[:, classes_C] = probs_NC
    share = 1 / (counts.sum() + 1)
    mixed = (1 - share) * whole + share * frequencies
    nll: NDArray[np.float64] = -np.log(mixed[np.arange(len(labels_N)), labels_N])
    return nll


def contrasted_information(
    x_ND: ArrayLike,
    y_NE: ArrayLike,
    *,
    folds: int = 5,
    max_steps: int = 3000,
    seed: int = 0,
) -> Information:
    """Return how much `x_ND` and `y_NE` tell about each other, by InfoNCE; all folds are trained at once."""
    generator = torch.Generator().manual_seed(seed)
    both = [torch.as_tensor(np.asarray(side), dtype=torch.float32) for side in (x_ND, y_NE)]
    n = len(both[0])
    train_on, stop_by, hold_out = shares(n, folds, generator)
    standards = [_standards(side[train_on.rows_FN]) for side in both]

    def of(share: Share) -> list[Tensor]:
        return [(side[share.rows_FN] - mean) / std for side, (mean, std) in zip(both, standards, strict=True)]

    seen, stop, held = of(train_on), of(stop_by), of(hold_out)
    critic = _critic(folds, both[0].shape[1], both[1].shape[1], generator)
    optimiser = torch.optim.Adam(critic, lr=LEARNING_RATE)
    # A critic that says the same of all pairs: a fold that finds no better one is left with 0 nats.
    best_F, best, waited = torch.zeros(folds), [p.detach().clone() for p in critic], 0
    for step in range(1, max_steps + 1):
        # Different rows each: an example that is drawn twice would be its own wrong answer.
        rows = torch.randperm(seen[0].shape[1], generator=generator)[:BATCH]
        loss = -_gains(critic, seen[0][:, rows], seen[1][:, rows]).mean(dim=1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % CHECK_EVERY:
            continue
        with torch.no_grad():
            value_F = _gains(critic, *stop).mean(dim=1)
            better_F = value_F > best_F
            waited = 0 if better_F.any() else waited + 1
            best_F = torch.where(better_F, value_F, best_F)
            for kept, parameter in zip(best, critic, strict=True):
                kept[better_F] = parameter[better_F]
        if waited == PATIENCE:
            break
    with torch.no_grad():
        values_N = hold_out.back(_gains(best, *held).unsqueeze(1), n)[0]
    return Information(values_N, math.log(held[0].shape[1]))


def _standards(x_FND: Tensor) -> tuple[Tensor, Tensor]:
    std = x_FND.std(dim=1, keepdim=True)
    return x_FND.mean(dim=1, keepdim=True), torch.where(std > 1e-6, std, torch.ones_like(std))


def _critic(folds: int, D: int, E: int, generator: torch.Generator) -> list[Tensor]:
    """Weights and biases of both perceptrons, [F, ...] each; all codes of the second are 0."""

    def drawn(rows: int, columns: int) -> list[Tensor]:
        weights = torch.randn(folds, rows, columns, generator=generator) * rows**-0.5
        return [weights, torch.zeros(folds, 1, columns)]

    nothing = [torch.zeros(folds, HIDDEN, CODE), torch.zeros(folds, 1, CODE)]
    parameters = drawn(D, HIDDEN) + drawn(HIDDEN, CODE) + drawn(E, HIDDEN) + nothing
    return [parameter.requires_grad_() for parameter in parameters]


def _gains(critic: list[Tensor], x_FND: Tensor, y_FNE: Tensor) -> Tensor:
    """What each example adds to the bound among those given, in nats, [F, N]."""
    code_x, code_y = (
        torch.tanh(side @ weight + bias) @ out + shift
        for side, (weight, bias, out, shift) in zip((x_FND, y_FNE), (critic[:4], critic[4:]), strict=True)
    )
    scores_FNN = code_x @ code_y.transpose(1, 2)
    n = scores_FNN.shape[1]
    return scores_FNN.diagonal(dim1=1, dim2=2) - scores_FNN.logsumexp(dim=2) + math.log(n)
