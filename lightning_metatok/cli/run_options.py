"""Options of a run beside model, data, trainer and callbacks: its folder, and the checkpoint it goes on from."""

from jsonargparse import ArgumentParser

DESCRIPTION = (
    "Every option is a key of a YAML file, too: --config FILE, repeated, the last one wins. --trust: the configuration "
    "beside a checkpoint may name classes of other packages, which are imported."
)


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
