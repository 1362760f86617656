"""The options of the Trainer's verbs: which there are follows from the kind of data alone."""

from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lightning_metatok.cli.kinds import Kind
from lightning_metatok.cli.run_options import add_options
from lightning_metatok.cli.seeds import add_seeds
from lightning_metatok.cli.training_parser import Parser, keep_text, read_integers_first

MADE: dict[type, Parser] = {}
"""Parsers that this process has made, by the data module whose options they take."""


class Options(LightningCLI):
    """LightningCLI with a parser that is made once a process, as making it takes as long as parsing.

    Attributes:
        verb, kind, dropped, foreign: set before the parser is made; `dropped` takes lines for the user.
        adds_options: whether a call has options of its own, so that its parser is no other's.
    """

    parser: Parser
    verb: str
    kind: Kind
    dropped: list[str]
    foreign: str | None
    adds_options = False

    def setup_parser(self, *args: Any) -> None:
        """Make the parser, or take the one that was made for this kind of data before: making it takes its time."""
        made = None if self.adds_options else MADE.get(self.kind.data)
        if made is None:
            super().setup_parser(*args)
            made = self.parser
            if not self.adds_options:
                MADE[self.kind.data] = made
        self.parser = made.fresh(f"lightning-metatok {self.verb}", self.dropped.append, self.foreign)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options beside model, data and trainer."""
        add_options(parser)
        add_seeds(parser)
        for key, callback in self.kind.callbacks.items():
            parser.add_lightning_class_args(callback, key)
        read_integers_first(parser)
        keep_text()
