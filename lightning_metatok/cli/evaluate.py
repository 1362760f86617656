"""`evaluate`: a checkpoint on tasks of EleutherAI's lm-evaluation-harness, without an export, or on long documents.

    lightning-metatok evaluate --ckpt_path CKPT --tasks fda,swde,squad_completion
    lightning-metatok evaluate --ckpt_path CKPT --tasks my_task --include_path my_tasks
    lightning-metatok evaluate --ckpt_path CKPT --text books/ --length 4096    loss by position in a document

Meta-tokens go into contexts by the rule of training, or by --meta_fraction and --placement.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_metatok.cli.output_file import check_output, writing
from lightning_metatok.errors import OptionParser, UserError

if TYPE_CHECKING:
    from lightning_metatok.lit.harness import Score
    from lightning_metatok.model import MetaTransformer

PLACEMENTS = ("random", "periodic", "punctuation")


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok evaluate", description=__doc__)
    parser.add_argument("--ckpt_path", required=True, help="checkpoint that `fit` or `import` wrote")
    parser.add_argument("--tasks", default=None, help="names of tasks, with commas between them")
    parser.add_argument(
        "--text", nargs="+", default=[], metavar="FILE", help="documents, as data.corpus; or python-stdlib"
    )
    parser.add_argument("--text_field", default="text", help="field that holds the text of a document (text)")
    parser.add_argument("--length", type=int, default=None, help="tokens of each document (8 times the trained length)")
    parser.add_argument("--trained", type=int, default=None, help="trained length (as the checkpoint says)")
    parser.add_argument("--stride", type=int, default=None, help="new tokens of a sliding window (a quarter of it)")
    parser.add_argument("--include_path", default=None, help="folder with tasks of your own, a YAML file each")
    parser.add_argument("--limit", type=int, default=None, help="documents, of each task (all) or of a text (16)")
    parser.add_argument("--n_shots", type=int, default=None, help="examples before each question (as the task says)")
    parser.add_argument("--batch_size", type=int, default=16, help="requests that are read at once (16)")
    parser.add_argument("--max_length", type=int, default=None, help="longest sequence (as the model was trained)")
    parser.add_argument(
        "--metadata", default=None, help="for tasks that take some, such as '{max_seq_lengths: [4096]}'"
    )
    parser.add_argument("--meta_fraction", type=float, default=None, help="meta-tokens in contexts (as in training)")
    parser.add_argument("--placement", default=None, help=f"where: one of {', '.join(PLACEMENTS)} (as in training)")
    parser.add_argument("--seed", type=int, default=0, help="seed of their places (0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (auto)")
    parser.add_argument("--output", type=Path, default=None, help="write the numbers as JSON, too")
    parser.add_argument("--trust", action="store_true", help="import classes of other packages that the model needs")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print a table of scores."""
    arguments = build_parser().parse(argv)
    fraction = arguments.meta_fraction
    for name, valid, expected in (
        ("limit", arguments.limit is None or arguments.limit > 0, "a positive number"),
        ("n_shots", arguments.n_shots is None or arguments.n_shots >= 0, "0 or more"),
        ("batch_size", arguments.batch_size > 0, "a positive number"),
        ("length", arguments.length is None or arguments.length > 1, "2 or more"),
        ("trained", arguments.trained is None or arguments.trained > 1, "2 or more"),
        ("stride", arguments.stride is None or arguments.stride > 0, "a positive number"),
        ("max_length", arguments.max_length is None or arguments.max_length > 1, "2 or more"),
        ("meta_fraction", fraction is None or 0 <= fraction <= 0.5, "a share between 0 and 0.5"),
        ("placement", arguments.placement in (None, *PLACEMENTS), f"one of {', '.join(PLACEMENTS)}"),
        ("seed", 0 <= arguments.seed < 2**63, "a seed from 0 to 2^63 - 1"),
    ):
        if not valid:
            raise UserError(f"--{name}={getattr(arguments, name)}: expected {expected}")
    if (arguments.tasks is None) == (not arguments.text):
        raise UserError("--tasks, --text: expected one of the two")
    check_output("--output", arguments.output)
    if arguments.text:
        from lightning_metatok.cli.evaluate_text import run

        return run(arguments)

    from lightning_metatok.cli.import_ import mapping
    from lightning_metatok.lit.checkpoints.load import load_trained
    from lightning_metatok.lit.checkpoints.marks import rule_for
    from lightning_metatok.lit.harness import evaluate, find_tasks
    from lightning_metatok.lit.live import LiveModel

    names = [name.strip() for name in arguments.tasks.split(",") if name.strip()]
    manager = find_tasks(names, arguments.include_path)
    metadata = None if arguments.metadata is None else dict(mapping("--metadata", arguments.metadata))
    model, tokenizer, marks = load_trained(Path(arguments.ckpt_path), trust=arguments.trust)
    model.config.check_causal(f"--ckpt_path={arguments.ckpt_path}: ")
    rule, said = rule_for(marks, fraction, arguments.placement)
    if said:
        print(f"lightning-metatok: --ckpt_path={arguments.ckpt_path} {said}", file=sys.stderr)
    move(model, arguments.device)
    live = LiveModel(
        model,
        tokenizer,
        rule=rule,
        batch_size=arguments.batch_size,
        max_length=arguments.max_length,
        seed=arguments.seed,
    )
    found = evaluate(live, names, manager, limit=arguments.limit, n_shots=arguments.n_shots, metadata=metadata)
    _print(found)
    if arguments.output is not None:
        with writing("--output", arguments.output):
            arguments.output.write_text(json.dumps([asdict(score) for score in found], indent=1) + "\n")
    return 0


def move(model: "MetaTransformer", chosen: str) -> None:
    """Move a model to the device that the user chose.

    Raises:
        UserError: there is none.
    """
    import torch

    device = ("cuda" if torch.cuda.is_available() else "cpu") if chosen == "auto" else chosen
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device={device}: {' '.join(str(error).split())[:200]}") from error


def _print(found: "Sequence[Score]") -> None:
    from rich.table import Table

    from lightning_metatok.console import printer

    table = Table("task", "metric", "value", "standard error", "documents")
    for score in found:
        error = "" if score.error is None else f"{score.error:.4f}"
        table.add_row(score.task, score.metric, f"{score.value:.4f}", error, f"{score.n:,}")
    printer().print(table)
