"""`generate`: continue prompts with a checkpoint. The checkpoint carries its tokenizer and its configuration."""

import sys
from argparse import HelpFormatter, Namespace
from collections.abc import Sequence
from pathlib import Path

from lightning_metatok.cli import prompts as asked
from lightning_metatok.cli.output_file import check_output, writing
from lightning_metatok.errors import OptionParser, UserError
from lightning_metatok.meta_tokens import SPELLED

PLACEMENTS = ("random", "periodic", "punctuation")
"""Those that need nothing but a fraction."""
MEMORIES = ("auto", "all", "window", "extra", "window+extra", "sinks+window")
"""Those of `model.memory`, which this file cannot import: `--help` is shown without torch."""
STDOUT = Path("-")


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok generate", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--ckpt_path", required=True, help="checkpoint that `fit` wrote")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--prompt", help="text to continue; may hold <|meta|>")
    text.add_argument(
        "--prompt_file",
        type=Path,
        help='a file that is the prompt, or a .jsonl with {"prompt": text} in each line',
    )
    parser.add_argument("--jsonl", type=Path, help="write JSON lines to this file instead of text; -: print them")
    parser.add_argument("--max_new_tokens", type=int, default=128, help="length of the continuation (128)")
    parser.add_argument("--stop", action="append", default=[], help="end at this text, not shown; may be repeated")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (0.8)")
    parser.add_argument("--top_k", type=int, default=None, help="sample among the k likeliest tokens")
    parser.add_argument("--top_p", type=float, default=None, help="sample among the likeliest tokens of mass p")
    parser.add_argument(
        "--min_p", type=float, default=None, help="sample among tokens at least p times as likely as the likeliest"
    )
    parser.add_argument(
        "--repetition_penalty", type=float, default=1.0, help="above 1: tokens are less likely to come again (1)"
    )
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
    parser.add_argument(
        "--memory", default="auto", metavar="RULE", help=f"what is kept of earlier tokens: {', '.join(MEMORIES)} (auto)"
    )
    parser.add_argument("--memory_window", type=int, default=None, help="last tokens that such a rule keeps (256)")
    parser.add_argument("--memory_sinks", type=int, default=None, help="first tokens that sinks+window keeps (4)")
    parser.add_argument(
        "--no_meta_while_writing",
        action="store_true",
        help="put meta-tokens into the prompt alone",
    )
    parser.add_argument("--show_meta", action="store_true", help="show <|meta|> in the output")
    parser.add_argument("--trust", action="store_true", help="import classes of other packages that the model needs")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print prompts and their continuations, or write them as JSON lines."""
    arguments = build_parser().parse(argv)
    _check(arguments)
    if arguments.jsonl != STDOUT:
        check_output("--jsonl", arguments.jsonl)
    prompts = asked.given(arguments.prompt) if arguments.prompt is not None else asked.read(arguments.prompt_file)

    from lightning_metatok.lit.checkpoints.load import load_trained
    from lightning_metatok.lit.checkpoints.marks import rule_for
    from lightning_metatok.lit.sampling import complete_all
    from lightning_metatok.model.memory import Memory
    from lightning_metatok.model.sampling import Sampling

    try:
        memory = Memory(arguments.memory, arguments.memory_window, arguments.memory_sinks)
    except UserError as wrong:
        raise UserError(f"--{wrong}") from None
    model, tokenizer, marks = load_trained(Path(arguments.ckpt_path), trust=arguments.trust)
    rule, said = rule_for(marks, arguments.meta_fraction, arguments.placement)
    if said and not all(SPELLED.search(prompt.text) for prompt in prompts):
        print(f"lightning-metatok: --ckpt_path={arguments.ckpt_path} {said}", file=sys.stderr)
    shown = _Shown() if arguments.jsonl is None else None
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
    done = complete_all(
        model,
        tokenizer,
        [prompt.text for prompt in prompts],
        Sampling(**{name: getattr(arguments, name) for name in names}),
        rule=rule,
        max_new_tokens=arguments.max_new_tokens,
        memory=memory,
        meta_while_writing=not arguments.no_meta_while_writing,
        stop=arguments.stop,
        keep_meta=arguments.show_meta,
        show=shown,
    )
    if shown is not None:
        print()
        return 0
    lines = asked.json_lines(prompts, done)
    if arguments.jsonl == STDOUT:
        print(lines, end="")
        return 0
    with writing("--jsonl", arguments.jsonl):
        arguments.jsonl.write_text(lines, encoding="utf-8")
    return 0


class _Shown:
    """Prints text as it comes; each prompt begins on a line of its own."""

    def __init__(self) -> None:
        self.place = 0

    def __call__(self, place: int, text: str) -> None:
        if place != self.place:
            print()
            self.place = place
        print(text, end="", flush=True)


def _check(arguments: Namespace) -> None:
    """Raise `UserError` where an option is out of range."""
    top_k, top_p, min_p, fraction = (getattr(arguments, name) for name in ("top_k", "top_p", "min_p", "meta_fraction"))
    for name, valid, expected in (
        ("max_new_tokens", arguments.max_new_tokens > 0, "a positive number"),
        ("stop", all(arguments.stop), "a text that is not empty"),
        ("temperature", 0 <= arguments.temperature < float("inf"), "0 or more"),
        ("top_k", top_k is None or top_k > 0, "a positive number"),
        ("top_p", top_p is None or 0 < top_p <= 1, "a number in (0, 1]"),
        ("min_p", min_p is None or 0 <= min_p <= 1, "a number in [0, 1]"),
        ("repetition_penalty", 0 < arguments.repetition_penalty < float("inf"), "a positive number"),
        ("seed", 0 <= arguments.seed < 2**63, "a seed from 0 to 2^63 - 1"),
        ("meta_fraction", fraction is None or 0 <= fraction <= 0.5, "a share between 0 and 0.5"),
        ("placement", arguments.placement in (None, *PLACEMENTS), f"one of {', '.join(PLACEMENTS)}"),
    ):
        if not valid:
            raise UserError(f"--{name}={getattr(arguments, name)}: expected {expected}")
