"""`export`: write a checkpoint as a folder that Hugging Face's transformers loads, with tokenizer and model card.

    lightning-metatok export --ckpt_path runs/base/checkpoints/last.ckpt --to exported

A model without meta-attention and the like is written as GPT-2, GPT-NeoX or Llama, which loads without this package.
"""

from collections.abc import Sequence
from pathlib import Path

from lightning_metatok.errors import OptionParser, UserError

SHAPES = ("auto", "stock", "own")


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok export", description=__doc__)
    parser.add_argument("--ckpt_path", required=True, help="checkpoint that `fit` wrote")
    parser.add_argument("--to", required=True, help="folder to make; it must not exist yet, or be empty")
    parser.add_argument(
        "--shape",
        default="auto",
        help=f"one of {', '.join(SHAPES)}: one of transformers' own where it is one (auto), that or nothing (stock), "
        "this package's class (own)",
    )
    parser.add_argument("--trust", action="store_true", help="import classes of other packages that the model needs")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Write the folder and say what it is."""
    arguments = build_parser().parse(argv)
    if arguments.shape not in SHAPES:
        raise UserError(f"--shape={arguments.shape}: expected one of {', '.join(SHAPES)}")

    from lightning_metatok.cli.quiet_hub import silence
    from lightning_metatok.export.write import Trained, check_folder, write

    silence()
    check_folder(Path(arguments.to))
    trained = Trained.read(Path(arguments.ckpt_path), trust=arguments.trust)
    print(write(trained, Path(arguments.to), shape=arguments.shape).says())
    return 0
