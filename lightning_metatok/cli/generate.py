"""`generate`: continue a prompt with a checkpoint. The checkpoint carries its tokenizer and its configuration."""

import sys
from argparse import HelpFormatter
from collections.abc import Sequence
from pathlib import Path

from lightning_metatok.errors import OptionParser, UserError

PLACEMENTS = ("random", "periodic", "punctuation")
"""Those that need nothing but a fraction."""


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok generate", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--ckpt_path", required=True, help="checkpoint that `fit` wrote")
    parser.add_argument("--prompt", required=True, help="text to continue; may hold <|meta|>")
    parser.add_argument("--max_new_tokens", type=int, default=128, help="length of the continuation (128)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (0.8)")
    parser.add_argument("--top_k", type=int, default=None, help="sample among the k likeliest tokens")
    parser.add_argument("--top_p", type=float, default=None, help="sample among the likeliest tokens of mass p")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling and of the meta-tokens (0)")
    parser.add_argument(
        "--meta_fraction",
        type=float,
        default=None,
        help="meta-tokens put into the prompt (as many as in training); 0: none",
    )
    parser.add_argument(
        "--placement", default=None, help=f"where they go: one of {', '.join(PLACEMENTS)} (as in training)"
    )
    parser.add_argument("--show_meta", action="store_true", help="show <|meta|> in the output")
    parser.add_argument("--trust", action="store_true", help="import classes of other packages that the model needs")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the prompt and its continuation."""
    arguments = build_parser().parse(argv)
    fraction, placement = arguments.meta_fraction, arguments.placement
    for name, valid, expected in (
        ("max_new_tokens", arguments.max_new_tokens > 0, "a positive number"),
        ("temperature", 0 <= arguments.temperature < float("inf"), "0 or more"),
        ("top_k", arguments.top_k is None or arguments.top_k > 0, "a positive number"),
        ("top_p", arguments.top_p is None or 0 < arguments.top_p <= 1, "a number in (0, 1]"),
        ("seed", 0 <= arguments.seed < 2**63, "a seed from 0 to 2^63 - 1"),
        ("meta_fraction", fraction is None or 0 <= fraction <= 0.5, "a share between 0 and 0.5"),
        ("placement", placement in (None, *PLACEMENTS), f"one of {', '.join(PLACEMENTS)}"),
    ):
        if not valid:
            raise UserError(f"--{name}={getattr(arguments, name)}: expected {expected}")
    try:
        arguments.prompt.encode()
    except UnicodeEncodeError as error:  # how Python passes on bytes that are no UTF-8
        raise UserError(f"--prompt={arguments.prompt!r}: expected text in UTF-8") from error

    from lightning_metatok.data.tokenizer import META
    from lightning_metatok.lit.checkpoints.load import load_trained
    from lightning_metatok.lit.checkpoints.marks import rule_for
    from lightning_metatok.lit.sampling import complete

    model, tokenizer, marks = load_trained(Path(arguments.ckpt_path), trust=arguments.trust)
    rule, said = rule_for(marks, fraction, placement)
    if said and META not in arguments.prompt:
        print(f"lightning-metatok: --ckpt_path={arguments.ckpt_path} {said}", file=sys.stderr)
    print(
        complete(
            model,
            tokenizer,
            arguments.prompt,
            rule=rule,
            max_new_tokens=arguments.max_new_tokens,
            temperature=arguments.temperature,
            top_k=arguments.top_k,
            top_p=arguments.top_p,
            seed=arguments.seed,
            keep_meta=arguments.show_meta,
        )
    )
    return 0
