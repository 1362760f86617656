"""How well a target can be told from a state through a channel of so many nats.

    distortion
       *                               o  held-out points, one for each price beta
        .                              *  the best constant guess: rate 0
          o                            .  lower convex hull: two channels may share time
             . .   o
                   o  .  .  o . . . .
       +----------------------------- rate

A point says: with a code of so many nats the target costs so many nats. As rate >= I(h; z) and distortion >= H(y | z),
points are achievable, and the true curve lies on or below their lower convex hull. Every point is measured on examples
that neither training nor its stopping has seen: folds take turns, each from another start, and every example is held
out once.

Sources: arXiv 2509.16278, section 5.1; Alemi et al. 2018, "Fixing a broken ELBO" (rate and distortion). What is known
of the curve: docs/theory.md.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lightning_metatok.analysis.bottleneck import SAMPLES, Categorical, Heads, Likelihood, train
from lightning_metatok.analysis.folds import Share, shares
from lightning_metatok.analysis.statistics import resampled_means

BETAS = tuple(float(beta) for beta in np.geomspace(1e-3, 3, 14))
"""Prices of a nat of rate: from next to nothing to more than it can save, which is 1 nat of distortion."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RateDistortion:
    """Held-out points of one state and one target; all in nats.

    Attributes:
        betas_B: prices of a nat of rate, ascending.
        rate_BN, distortion_BN: of every example, when it was held out.
        guess_N: distortion of the best constant guess of the other examples: the point of rate 0.
        converged: whether all heads stopped because they gained nothing more, not because steps ran out.
    """

    betas_B: Floats
    rate_BN: Floats
    distortion_BN: Floats
    guess_N: Floats
    converged: bool

    @property
    def points(self) -> tuple[Floats, Floats]:
        """Mean rate and mean distortion for each beta, [B] each."""
        return self.rate_BN.mean(axis=1), self.distortion_BN.mean(axis=1)

    def curve(self, rates_R: ArrayLike) -> Floats:
        """Distortion at `rates_R` on the lower convex hull of the points and the guess, [R]."""
        rate_B, distortion_B = self.points
        return _on_hull(rate_B, distortion_B, float(self.guess_N.mean()), np.asarray(rates_R, dtype=np.float64))

    def band(
        self,
        rates_R: ArrayLike,
        confidence: float = 0.95,
        n_resamples: int = 1000,
        seed: int = 0,
    ) -> tuple[Floats, Floats]:
        """Lower and upper end of the curve's interval at `rates_R`, [R] each: percentiles of a bootstrap over examples.

        Heads are not trained anew: this is the error of measuring them on so many examples.
        """
        B, rates_R = len(self.betas_B), np.asarray(rates_R, dtype=np.float64)
        values_NK = np.concatenate([self.rate_BN, self.distortion_BN, self.guess_N[None]]).T
        means_CK = resampled_means(values_NK, n_resamples, seed)
        draws = ((means[:B], means[B:-1], float(means[-1])) for means in means_CK)
        curves_CR = np.stack([_on_hull(*draw, rates_R) for draw in draws])
        low_R, high_R = np.quantile(curves_CR, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
        return low_R, high_R


def lower_convex_hull(x_P: ArrayLike, y_P: ArrayLike) -> tuple[Floats, Floats]:
    """Return the corners of the lower convex hull of points, left to right, up to the lowest one."""
    points = sorted(zip(np.asarray(x_P, dtype=np.float64), np.asarray(y_P, dtype=np.float64), strict=True))
    hull: list[tuple[float, float]] = []
    for x, y in points:
        # A corner that lies on or above the line from the one before it to the new point is none.
        while len(hull) > 1 and _turns_right(hull[-2], hull[-1], (x, y)):
            hull.pop()
        if hull and hull[-1][0] == x:  # sorted: the one that is there is lower
            continue
        hull.append((x, y))
    lowest = min(range(len(hull)), key=lambda i: hull[i][1])
    corners = np.array(hull[: lowest + 1])
    return corners[:, 0], corners[:, 1]


def rate_distortion_curve(
    states_ND: ArrayLike,
    targets_N: ArrayLike,
    likelihood: Likelihood | None = None,
    *,
    betas: ArrayLike = BETAS,
    width: int = 16,
    folds: int = 5,
    tolerance: float = 5e-3,
    max_steps: int = 4000,
    seed: int = 0,
) -> RateDistortion:
    """Train a head for every beta and every fold, and measure each where it has not been trained.

    Args:
        states_ND: what is encoded; standardised here by what is trained on.
        targets_N: int classes [N], or real vectors [N, O].
        likelihood: the decoder; None: `Categorical` over the classes up to the largest.
        betas: prices of a nat of rate, positive.
        width: dimensions Z of the code.
        folds: how many parts take turns: one is held out, one says when to stop, the others are trained on; 3 at least.
        tolerance: training ends when no head's objective gains so many nats any more.
        max_steps: when to stop in any case.
        seed: of starts, noise and folds.
    """
    states, targets = (
        torch.as_tensor(np.asarray(states_ND), dtype=torch.float32),
        torch.as_tensor(np.asarray(targets_N)),
    )
    targets = targets if targets.is_floating_point() else targets.long()
    if likelihood is None:
        likelihood = Categorical(int(targets.max()) + 1)
    betas_B = np.sort(np.asarray(betas, dtype=np.float64))
    assert betas_B[0] > 0, "a price above 0"
    N = len(states)
    generator = torch.Generator().manual_seed(seed)
    train_on, stop_by, hold_out = shares(N, folds, generator)
    x_FND = states[train_on.rows_FN]
    mean_F1D, std_F1D = x_FND.mean(dim=1, keepdim=True), x_FND.std(dim=1, keepdim=True)
    std_F1D = torch.where(std_F1D > 1e-6, std_F1D, torch.ones_like(std_F1D))  # else noise of rounding would be blown up

    def of(share: Share) -> tuple[Tensor, Tensor]:
        return (states[share.rows_FN] - mean_F1D) / std_F1D, targets[share.rows_FN]

    heads = Heads(folds, len(betas_B), states.shape[1], width, likelihood.n_outputs(targets), generator)
    prices_B = torch.as_tensor(betas_B, dtype=torch.float32)
    converged = train(heads, of(train_on), of(stop_by), prices_B, likelihood, tolerance, max_steps, generator)
    with torch.no_grad():
        x, y = of(hold_out)
        rate_FBN, distortion_FBN = heads.costs(x, y, likelihood, generator, SAMPLES)
        guess_FO = torch.stack([likelihood.guess(seen) for seen in of(train_on)[1]])
        guess_FN = likelihood.nll(guess_FO.unsqueeze(1).expand(-1, y.shape[1], -1), y)
    rate_BN, distortion_BN = hold_out.back(rate_FBN, N), hold_out.back(distortion_FBN, N)
    return RateDistortion(betas_B, rate_BN, distortion_BN, hold_out.back(guess_FN.unsqueeze(1), N)[0], converged)


def _turns_right(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]) <= 0


def _on_hull(rate_B: Floats, distortion_B: Floats, guess: float, rates_R: Floats) -> Floats:
    return np.interp(rates_R, *lower_convex_hull(np.append(rate_B, 0.0), np.append(distortion_B, guess)))
