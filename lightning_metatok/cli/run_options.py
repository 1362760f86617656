"""Options of a run beside model, data, trainer and callbacks: its folder, the checkpoint it goes on from, its seeds."""

import torch
from jsonargparse import ArgumentParser, Namespace

from lightning_metatok.errors import UserError

DESCRIPTION = (
    "Every option is a key of a YAML file, too: --config FILE, repeated, the last one wins. --trust: the configuration "
    "beside a checkpoint may name classes of other packages, which are imported."
)
SEEDS = {
    "weights": "the weights at the start; null: seed_everything",
    "data": "the training data and their order, and of marks; null: data.seed, which files set to seed_everything",
    "dropout": "dropout and random positions; null: that of the data",
}
"""What can be drawn apart."""


def add_options(parser: ArgumentParser) -> None:
    """Add them."""
    parser.add_argument(
        "--run_dir",
        type=str,
        default="runs/run",
        help="Folder of the run; a new run never writes over an old one.",
    )
    parser.add_argument(
        "--ckpt_path",
        type=str | None,
        default=None,
        help="Checkpoint to go on from (fit) or to read (other verbs); auto: the newest valid one of run_dir, "
        "and where there is none, fit starts in run_dir. A fit that goes on in its folder takes away what is "
        "younger than the checkpoint there: later checkpoints and later lines of the logs.",
    )
    parser.add_argument(
        "--allow_changed",
        type=list[str],
        default=[],
        help="Keys that may differ from those of the run that fit goes on with, such as model.optimizer.lr.",
    )
    for name, what in SEEDS.items():
        parser.add_argument(f"--seed.{name}", type=int | None, default=None, help=f"Seed of {what}.")


def follow_seed_of_data(config: Namespace, default: int) -> None:
    """Let the data have the seed that `seed.data` asks for; `default` is that of the data.

    Raises:
        UserError: `data.seed` asks for another.
    """
    data, own = config.data, config.seed.data
    if own is not None:
        if data.seed not in (own, config.seed_everything, default):
            raise UserError(f"data.seed={data.seed}, seed.data={own}: expected one of them alone, or the same")
        data.seed = own


def seed_weights(config: Namespace) -> None:
    """Seed the generator that weights are drawn with.

    Whatever has drawn since it was set first: the model's start is that of the seed.
    """
    weights = config.seed.weights
    if weights is None and not isinstance(config.seed_everything, bool):
        weights = config.seed_everything
    if weights is not None:
        torch.manual_seed(weights)
