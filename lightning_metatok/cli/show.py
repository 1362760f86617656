"""`show`: what a configuration comes to: every key, its value, type and default, and which file says so.

    lightning-metatok show --config conf/base.yaml --config conf/arm/plain.yaml --trainer.max_steps=500
    lightning-metatok show --config conf/base.yaml --changed --only model data.meta

Options of `fit` are taken as `fit` takes them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_metatok.errors import OptionParser, UserError, nearest

OPTIONS, DEFAULT, FOLLOWS = "option", "default", "follows"
"""Where a value comes from that no file gives: the command line, nobody, or what other keys and the tokenizer say."""


@dataclass(frozen=True)
class Row:
    """A key of the configuration; `source`: a file, or one of the words above, and `${...}` as it stands there."""

    key: str
    value: str
    type: str
    default: str
    source: str


def build_parser() -> OptionParser:
    """Options of the verb, those of `fit` left out."""
    parser = OptionParser(prog="lightning-metatok show", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="KEY", help="keys that begin so, such as model.optimizer"
    )
    parser.add_argument("--config", "-c", action="append", default=[], metavar="FILE", help="as of `fit`")
    parser.add_argument("--changed", action="store_true", help="only what is not as by default")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the table."""
    arguments, of_fit = build_parser().parse_known_args(list(argv))
    rows = list(read([*(f"--config={path}" for path in arguments.config), *of_fit]))
    keys = [row.key for row in rows]
    for begin in arguments.only:
        if not any(key.startswith(begin) for key in keys):
            groups = {key.rpartition(".")[0] for key in keys} - {""}
            raise UserError(f"--only={begin}: expected the beginning of a key{nearest(begin, [*keys, *groups])}")
    if arguments.only:
        rows = [row for row in rows if row.key.startswith(tuple(arguments.only))]
    if arguments.changed:
        rows = [row for row in rows if row.value != row.default]
    from rich.table import Table
    from rich.text import Text

    from lightning_metatok.console import printer

    table = Table(box=None, pad_edge=False)
    for column in ("key", "value", "type", "default", "from"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, (row.key, row.value, row.type, row.default, row.source)))
    printer().print(table if rows else "everything is as by default", highlight=False)
    return 0


def read(argv: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of what `fit` with these arguments would run with; nothing is built.

    Raises:
        UserError: what `fit` would refuse of a configuration.
    """
    from lightning_metatok.cli.config_files import known_keys
    from lightning_metatok.cli.interpolations import Records
    from lightning_metatok.cli.layers import dotted, leaves, named_layers
    from lightning_metatok.cli.option_types import default_of, typed
    from lightning_metatok.cli.reading import read_configuration

    cli, given = read_configuration("show", argv)
    known = known_keys(cli.parser)
    options = leaves(known)
    layers = [(file or OPTIONS, layer) for file, layer in named_layers(given, known)]
    values = dict(dotted(Records(cli.parser).values(cli.config), options))
    written = dict(dotted(cli.parser.given or {}, options))
    for key, what, default in typed(cli.parser):
        value = default_of(values.get(key))
        said = "seed.data" if key == "data.seed" and values.get("seed.data") is not None else key
        source = source_of(said, layers) or (DEFAULT if value == default else FOLLOWS)
        text = written.get(said)
        as_written = f" {text}" if isinstance(text, str) and "${" in text and text != values.get(key) else ""
        yield Row(key, value, what, default, f"{source}{as_written}")


def source_of(key: str, layers: Sequence[tuple[str, Sequence[tuple[str, Any]]]]) -> str | None:
    """Return the source of the last layer that speaks of a key, of what it holds, or of the group it is in."""
    for source, layer in reversed(layers):
        for said, value in layer:
            if said == key or said.startswith(f"{key}.") or (key.startswith(f"{said}.") and isinstance(value, Mapping)):
                return source
    return None
