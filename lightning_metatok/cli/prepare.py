"""`prepare`: the text of a run becomes tokens ahead, on all cores; `fit` with the same configuration finds them.

    lightning-metatok prepare --config conf/base.yaml --data.corpus=my_text.jsonl
    lightning-metatok prepare --config conf/gpt2_small_c4.yaml --workers 64

A start that was killed goes on where it was. Options of `fit` are taken as `fit` takes them. The page says what the
text is like: documents, tokens, bytes a token, duplicates, lengths.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lightning_metatok.cli.endings import say
from lightning_metatok.cli.output_file import check_output, writing
from lightning_metatok.errors import OptionParser, UserError
from lightning_metatok.files import write_atomically
from lightning_metatok.runtime import usable_cores
from lightning_metatok.signals import Ended


def build_parser() -> OptionParser:
    """Options of the verb, those of `fit` left out."""
    parser = OptionParser(prog="lightning-metatok prepare", description=__doc__)
    add = parser.add_argument
    add("--config", "-c", action="append", default=[], metavar="FILE", help="as of `fit`; repeated, the last one wins")
    add("--workers", type=int, metavar="N", help="processes that tokenise (as many as cores); any number, same tokens")
    add("--page", type=Path, metavar="FILE", help="where the page goes (beside the tokens, which is printed), as HTML")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Prepare the text; print what it is, where it lies and where the page is."""
    arguments, of_fit = build_parser().parse_known_args(list(argv))
    check(arguments)
    from lightning_metatok.cli.kinds import KINDS
    from lightning_metatok.cli.reading import read_configuration
    from lightning_metatok.data import prepare
    from lightning_metatok.lit import MetaTokenDataModule
    from lightning_metatok.lit.data.saying import say_of_data
    from lightning_metatok.report.corpus import page
    from lightning_metatok.report.html import html

    reader, _ = read_configuration(verb, [*(f"--config={path}" for path in arguments.config), *of_fit])
    config = reader.config.as_dict()
    if reader.kind is not KINDS["text"]:
        raise UserError(f"data.task={config['data']['task']}: expected a run on text; a task makes its own prompts")
    data = MetaTokenDataModule(**config["data"])
    if data.shuffle_buffer is not None:
        raise UserError(
            f"data.shuffle_buffer={data.shuffle_buffer}: expected null; else text is tokenised as it trains"
        )
    try:
        data.tokenizer, data.store = prepare(data.config, say_of_data, arguments.workers or len(usable_cores()))
    except (KeyboardInterrupt, Ended):
        say("what was tokenised is kept, and the same command goes on from there")
        raise
    print(f"data: {data.summary()}")
    folder = data.store.folder
    path = arguments.page or folder.with_suffix(".html")
    with writing("--page", path):
        write_atomically(path, html(page(data)))
    print(f"tokens: {folder}\npage: {path}")
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Raise `UserError` for an option of this verb that cannot work."""
    if not arguments.config:
        raise UserError("--config: expected a configuration as `fit` takes it, such as conf/base.yaml")
    if arguments.workers is not None and not 1 <= arguments.workers <= 4 * len(usable_cores()):
        raise UserError(f"--workers={arguments.workers}: expected 1 to {4 * len(usable_cores())}, the cores are")
    check_output("--page", arguments.page)
