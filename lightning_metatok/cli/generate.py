"""`generate`: continue a prompt with a checkpoint. The checkpoint carries its tokenizer and its configuration."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lightning_metatok.errors import UserError, nearest


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(message)


def build_parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    parser = _Parser(prog="lightning-metatok generate", description=__doc__, allow_abbrev=False)
    parser.add_argument("--ckpt_path", required=True, help="checkpoint that `fit` wrote")
    parser.add_argument("--prompt", required=True, help="text to continue; may hold <|meta|>")
    parser.add_argument("--max_new_tokens", type=int, default=128, help="length of the continuation (128)")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (0.8)")
    parser.add_argument("--top_k", type=int, default=None, help="sample among the k likeliest tokens")
    parser.add_argument("--top_p", type=float, default=None, help="sample among the likeliest tokens of mass p")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling and of the meta-tokens (0)")
    parser.add_argument(
        "--meta_fraction", type=float, default=0.1, help="meta-tokens put into the prompt (0.1); 0: none"
    )
    parser.add_argument("--placement", default="random", help="random, periodic or punctuation (random)")
    parser.add_argument("--show_meta", action="store_true", help="show <|meta|> in the output")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the prompt and its continuation."""
    parser = build_parser()
    arguments, unknown = parser.parse_known_args(list(argv))
    if unknown:
        options = [o for action in parser._actions for o in action.option_strings]
        raise UserError(f"unknown option '{unknown[0]}'{nearest(unknown[0], options)}")
    for name, valid, expected in (
        ("max_new_tokens", arguments.max_new_tokens > 0, "a positive number"),
        ("temperature", arguments.temperature >= 0, "0 or more"),
        ("top_k", arguments.top_k is None or arguments.top_k > 0, "a positive number"),
        ("top_p", arguments.top_p is None or 0 < arguments.top_p <= 1, "a number in (0, 1]"),
    ):
        if not valid:
            raise UserError(f"--{name}={getattr(arguments, name)}: expected {expected}")

    from lightning_metatok.data import InjectionRule
    from lightning_metatok.lit.module import load_model
    from lightning_metatok.lit.sampling import complete

    rule = InjectionRule(fraction=arguments.meta_fraction, placement=arguments.placement)
    model, tokenizer = load_model(Path(arguments.ckpt_path))
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
