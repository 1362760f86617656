"""The configuration that `fit` would run with, read and checked; nothing is built, no folder is touched."""

from collections.abc import Sequence

from lightning_metatok.cli.base import with_base
from lightning_metatok.cli.own_config import with_own_config
from lightning_metatok.cli.training import TrainingCLI
from lightning_metatok.cli.training_parser import quiet
from lightning_metatok.cli.vocabulary import with_vocabulary


class Reader(TrainingCLI):
    """`fit` up to the point where it would build its classes."""

    def before_instantiate_classes(self) -> None:
        """Look for no checkpoint, lock no folder."""

    def instantiate_classes(self) -> None:
        """Build nothing."""


def read_configuration(verb: str, argv: Sequence[str]) -> tuple[Reader, list[str]]:
    """Return what read the arguments of `fit`, and the arguments with those that come with a checkpoint.

    Raises:
        UserError: what `fit` would refuse of a configuration.
    """
    quiet()
    given, foreign = with_own_config("fit", list(argv))
    return Reader(verb, with_vocabulary(verb, with_base(verb, given)), foreign=foreign), given
