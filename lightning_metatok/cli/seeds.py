"""Seeds of their own for what is drawn apart: weights, data, dropout. Each is `seed_everything` until it is named."""

from typing import Any

from lightning_metatok.errors import UserError

SEEDS = {
    "weights": "the weights at the start; null: seed_everything",
    "data": "the training data and their order, and of marks; null: data.seed, which files set to seed_everything",
    "dropout": "dropout and random positions; null: that of the data",
}
"""What can be drawn apart."""


def add_seeds(parser: Any) -> None:
    """Add their options."""
    for name, what in SEEDS.items():
        parser.add_argument(f"--seed.{name}", type=int | None, default=None, help=f"Seed of {what}.")


def seed_data(config: Any, usual: int) -> None:
    """Let `data.seed` be `seed.data` where that is given; `usual` is what it is where nobody says it.

    Raises:
        UserError: both are given, and differ.
    """
    own, data = config.seed.data, config.data
    if own is None:
        return
    if data.seed not in (own, config.seed_everything, usual):
        raise UserError(f"data.seed={data.seed}, seed.data={own}: expected one of them alone, or the same")
    data.seed = own


def seed_weights(config: Any) -> None:
    """Let the model that is built next begin with its seed, whatever was drawn before."""
    import torch

    own, everything = config.seed.weights, config.seed_everything
    if own is None and not isinstance(everything, bool):
        own = everything
    if own is not None:
        torch.manual_seed(own)
