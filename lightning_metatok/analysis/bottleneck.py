"""Variational information bottlenecks, many at once: the heads that `rate_distortion` trains.

    h ──> z ~ N(mu(h), diag sigma^2(h)) ──> q(y | z)        mu is affine in h, sigma a softplus of another affine map,
                                                            the decoder affine in z
    min  E[-log q(y | z)]  +  beta E[KL(N(mu, sigma^2) || N(0, I))]
         └─ distortion ──┘         └──────────── rate ────────────┘        both in nats

One head for each fold F of the examples and each price beta B, trained together as one problem, each stopped where it
was best on examples that it is not trained on. N examples, D width of the states, Z of the code, E = 2 Z outputs of the
encoder, O of the decoder.

Sources: arXiv 2509.16278, section 5.1; Alemi et al. 2017, "Deep variational information bottleneck".
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LEARNING_RATE, BATCH = 0.02, 64
"""Of Adam, and examples of each fold in a step, when training starts."""
CHECK_EVERY, PATIENCE, CUTS = 20, 4, 3
"""Steps between two looks at the stopping examples; looks without a gain until the step size is quartered and the batch
doubled; how often that is done before training ends."""
SAMPLES = 8
"""Codes drawn for each example that is not trained on."""
PRIOR_STD = 0.5413248546
"""softplus of this is 1."""


def gaussian_kl(mean: Tensor, std: Tensor) -> Tensor:
    """Return KL(N(mean, diag std²) || N(0, I)) in nats, summed over the last dimension."""
    return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(dim=-1)


class Likelihood(Protocol):
    """What a decoder says about the target: outputs [..., N, O] against targets [N] or [N, O]."""

    def n_outputs(self, targets: Tensor) -> int:
        """O."""

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """-log q(y | z) in nats, [..., N]."""

    def guess(self, targets: Tensor) -> Tensor:
        """The outputs [O] that say most about all `targets` at once: the best decoder at a rate of 0."""


@dataclass(frozen=True)
class Categorical:
    """Classes 0 to `n_classes` - 1, by a softmax."""

    n_classes: int

    def n_outputs(self, targets: Tensor) -> int:
        """One logit a class."""
        return self.n_classes

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy."""
        return -outputs.log_softmax(dim=-1).gather(-1, targets.unsqueeze(-1).expand(*outputs.shape[:-1], 1)).squeeze(-1)

    def guess(self, targets: Tensor) -> Tensor:
        """Log frequencies; a class that is not there counts as half an example."""
        return torch.bincount(targets, minlength=self.n_classes).clamp(min=0.5).log()


@dataclass(frozen=True)
class Gaussian:
    """Real vectors with independent errors of a given variance: squared error, as nats."""

    variance: float = 1.0

    def n_outputs(self, targets: Tensor) -> int:
        """One mean a dimension."""
        return targets.shape[-1]

    def nll(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """-log density."""
        errors = (outputs - targets).square() / self.variance
        return 0.5 * (errors + float(np.log(2 * np.pi * self.variance))).sum(dim=-1)

    def guess(self, targets: Tensor) -> Tensor:
        """The mean."""
        return targets.mean(dim=0)


class Heads:
    """Encoders and decoders of all folds and prices."""

    def __init__(self, F: int, B: int, D: int, Z: int, O: int, generator: torch.Generator) -> None:  # noqa: E741
        def start(*shape: int, std: float) -> Tensor:
            # All prices of a fold start alike, and get the same noise in training: nothing else differs between them.
            return torch.randn(F, 1, *shape, generator=generator).mul(std).expand(F, B, *shape).clone()

        self.mean_FBDZ, self.std_FBDZ = start(D, Z, std=D**-0.5), torch.zeros(F, B, D, Z)
        self.shift_FB1E = torch.zeros(F, B, 1, 2 * Z)
        self.decode_FBZO, self.shift_FB1O = start(Z, O, std=Z**-0.5), torch.zeros(F, B, 1, O)

    @property
    def parameters(self) -> list[Tensor]:
        """All that is trained, [F, B, ...] each."""
        return [self.mean_FBDZ, self.std_FBDZ, self.shift_FB1E, self.decode_FBZO, self.shift_FB1O]

    def encode(self, x_FND: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the codes, [F, B, N, Z] each."""
        encode_FBDE = torch.cat([self.mean_FBDZ, self.std_FBDZ], dim=-1)
        # One large product for all prices of a fold, which share their states.
        out = torch.bmm(x_FND, encode_FBDE.transpose(1, 2).flatten(2)).unflatten(2, (encode_FBDE.shape[1], -1))
        mean, raw = (out.transpose(1, 2) + self.shift_FB1E).chunk(2, dim=-1)
        return mean, F.softplus(raw + PRIOR_STD) + 1e-5

    def decode(self, z_FBNZ: Tensor) -> Tensor:
        """What the likelihood takes, [F, B, N, O]."""
        return z_FBNZ @ self.decode_FBZO + self.shift_FB1O

    def costs(
        self,
        x_FND: Tensor,
        y_FN: Tensor,
        likelihood: Likelihood,
        generator: torch.Generator,
        samples: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """Rate, and distortion over `samples` codes, of each example, in nats, [F, B, N] each."""
        mean, std = self.encode(x_FND)
        distortion = torch.zeros(mean.shape[:3])
        for _ in range(samples):
            noise_F1NZ = torch.randn(len(mean), 1, *mean.shape[2:], generator=generator)
            distortion = distortion + likelihood.nll(self.decode(mean + std * noise_F1NZ), y_FN.unsqueeze(1)) / samples
        return gaussian_kl(mean, std), distortion


def train(
    heads: Heads,
    train_on: tuple[Tensor, Tensor],
    stop_by: tuple[Tensor, Tensor],
    prices_B: Tensor,
    likelihood: Likelihood,
    tolerance: float,
    max_steps: int,
    generator: torch.Generator,
) -> bool:
    """Train `heads` and leave each as it was when it was best; return whether none had anything more to gain.

    Args:
        train_on, stop_by: states [F, N, D] and targets [F, N] or [F, N, O].
        prices_B: beta.
        tolerance: nats of the objective that count as a gain.
    """
    x, y = train_on
    parameters = [p.requires_grad_() for p in heads.parameters]
    best = [p.detach().clone() for p in parameters]
    best_FB = torch.full(best[0].shape[:2], torch.inf)
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    stop_seed, waited, cuts, converged = generator.initial_seed(), 0, 0, False
    for step in range(1, max_steps + 1):
        rows = torch.randint(x.shape[1], (BATCH * 2**cuts,), generator=generator)
        rate, distortion = heads.costs(x[:, rows], y[:, rows], likelihood, generator)
        optimiser.zero_grad()
        (distortion.mean(dim=2) + prices_B * rate.mean(dim=2)).sum().backward()
        optimiser.step()
        if step % CHECK_EVERY:
            continue
        with torch.no_grad():
            # The same codes at each look: a head is kept for what it is, not for its luck.
            rate, distortion = heads.costs(*stop_by, likelihood, torch.Generator().manual_seed(stop_seed), SAMPLES)
            value_FB = distortion.mean(dim=2) + prices_B * rate.mean(dim=2)
            waited = 0 if (value_FB < best_FB - tolerance).any() else waited + 1
            better_FB = value_FB < best_FB
            best_FB = torch.where(better_FB, value_FB, best_FB)
            for kept, parameter in zip(best, parameters, strict=True):
                kept[better_FB] = parameter[better_FB]
            if waited < PATIENCE:
                continue
            converged = cuts == CUTS
            if converged:
                break
            waited, cuts = 0, cuts + 1
            for kept, parameter in zip(best, parameters, strict=True):
                parameter.copy_(kept)
            optimiser.param_groups[0]["lr"] /= 4
    with torch.no_grad():
        for kept, parameter in zip(best, parameters, strict=True):
            parameter.copy_(kept).requires_grad_(False)
    return converged
