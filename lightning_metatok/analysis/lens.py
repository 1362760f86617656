"""Lenses: what the model would say if it stopped at a layer.

    logit lens   softmax(head(norm(x_l)))                    nostalgebraist 2020, "interpreting GPT: the logit lens"
    tuned lens   softmax(head(norm(x_l + A_l x_l + b_l)))    Belrose et al. 2023, arXiv 2303.08112, section 3

The tuned lens of a layer is one affine map, trained on states to give the distribution that the model ends with; it
begins as the logit lens (A = 0, b = 0). What is then still far from the end is not there yet in a linear form, rather
than written in another basis. Both are measured by KL(end || lens), in nats.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Readout = Callable[[Tensor], Tensor]
"""States [..., D] to logits [..., V]: the final norm and the head."""


def kl_to_end(end_nV: Tensor, lens_nV: Tensor) -> Tensor:
    """KL(end || lens) in nats of two sets of logits, [n]."""
    end, lens = end_nV.log_softmax(dim=-1), lens_nV.log_softmax(dim=-1)
    return (end.exp() * (end - lens)).sum(dim=-1)


class Translator(torch.nn.Module):
    """The affine map of one layer, x + A x + b."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.map = torch.nn.Linear(d_model, d_model)
        torch.nn.init.zeros_(self.map.weight)
        torch.nn.init.zeros_(self.map.bias)

    def forward(self, x_nD: Tensor) -> Tensor:
        """States in the basis of the last layer."""
        translated: Tensor = x_nD + self.map(x_nD)
        return translated


def train_translator(
    states_nD: Tensor,
    end_nV: Tensor,
    readout: Readout,
    *,
    steps: int = 300,
    batch: int = 512,
    lr: float = 3e-3,
    seed: int = 0,
) -> Translator:
    """Return the tuned lens of a layer, trained on its states and the logits that the model ends with.

    Adam with a learning rate that falls to 0; `seed` decides the batches, the global generator stays as it was.
    """
    with torch.random.fork_rng(devices=[]):  # Linear draws its first weights, which are then zeroed
        translator = Translator(states_nD.shape[1]).to(states_nD.device, states_nD.dtype)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(translator.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    n = len(states_nD)
    with torch.enable_grad():
        for _ in range(steps):
            chosen = torch.randint(n, (min(batch, n),), generator=generator).to(states_nD.device)
            loss = kl_to_end(end_nV[chosen], readout(translator(states_nD[chosen]))).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return translator.eval().requires_grad_(False)
