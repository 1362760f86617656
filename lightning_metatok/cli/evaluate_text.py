"""`evaluate --text`: loss, perplexity and bits per byte of long documents, by position and by how they are read."""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from lightning_metatok.analysis.effective_length import KEPT_SHARE
from lightning_metatok.cli.evaluate import move
from lightning_metatok.cli.output_file import writing
from lightning_metatok.console import printer
from lightning_metatok.data import CorpusConfig, open_corpus
from lightning_metatok.data.local_files import find_files
from lightning_metatok.data.sources import PYTHON_STDLIB, Files
from lightning_metatok.errors import UserError
from lightning_metatok.lit import long_text
from lightning_metatok.lit.checkpoints.io import read_state
from lightning_metatok.lit.checkpoints.load import trained_length, trained_of
from lightning_metatok.lit.checkpoints.marks import rule_for
from lightning_metatok.lit.long_text import Found

DOCUMENTS, TIMES = 16, 8
"""As many documents, and as many times the trained length, unless the user says otherwise."""


def run(arguments: argparse.Namespace) -> int:
    """Print the table; `arguments` are those of the verb, checked."""
    path = Path(arguments.ckpt_path)
    checkpoint = read_state(path, key="--ckpt_path")
    model, tokenizer, marks = trained_of(checkpoint, path, trust=arguments.trust)
    model.config.check_causal(f"--ckpt_path={path}: ")
    rule, said = rule_for(marks, arguments.meta_fraction, arguments.placement)
    if said:
        print(f"lightning-metatok: --ckpt_path={path} {said}", file=sys.stderr)
    trained = arguments.trained or trained_length(checkpoint)
    if trained is None:
        raise UserError(f"--ckpt_path={path}: says no length of text that it was trained on; expected --trained, too")
    length = arguments.length or TIMES * trained
    stride = arguments.stride or max(1, trained // 4)
    if stride >= trained:
        raise UserError(f"--stride={stride}: expected less than a window of {trained} tokens")
    most = DOCUMENTS if arguments.limit is None else arguments.limit
    documents_DN = long_text.long_documents(texts_of(arguments.text, arguments.text_field), tokenizer, length, most)
    if not len(documents_DN):
        raise UserError(
            f"--text={' '.join(arguments.text)}: no document of {length} tokens; expected a smaller --length"
        )
    move(model, arguments.device)
    found: list[Found] = []
    left_out: list[str] = []
    for way in long_text.ways(trained, length, stride):
        try:
            found.append(
                long_text.read(
                    model,
                    tokenizer,
                    documents_DN,
                    way,
                    trained=trained,
                    rule=rule,
                    seed=arguments.seed,
                    batch_size=max(1, arguments.batch_size * trained // way.window),
                )
            )
        except UserError as error:
            left_out.append(f"{way.name} is left out: {error}")
    if not found:
        raise UserError(left_out[0].partition(": ")[2])  # of the shortest windows
    control = next(one for one in found if one.way.name == long_text.SLIDING)
    lengths = [None if one is control else long_text.effective(one, control, trained) for one in found]
    console = printer()
    console.print(table(found, lengths, trained, len(documents_DN)))
    for line in left_out:
        console.print(line, highlight=False, soft_wrap=True)
    if arguments.output is not None:
        rows = [{**asdict(one), "effective_length": length} for one, length in zip(found, lengths, strict=True)]
        with writing("--output", arguments.output):
            arguments.output.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def texts_of(names: Sequence[str], text_field: str) -> Iterable[str]:
    """Return the documents of files and folders, or those of Python's sources that test.

    Raises:
        UserError: there are none.
    """
    if list(names) == [PYTHON_STDLIB]:
        return open_corpus(CorpusConfig()).documents("test")
    paths = tuple(dict.fromkeys(path for name in names for path in find_files(name, "--text")))
    return Files(paths, text_field, "file").documents()


def table(found: Sequence[Found], lengths: Sequence[float | None], trained: int, n: int) -> Table:
    """A row a way of reading, a column a stretch of positions."""
    first, length = found[0], f"{found[0].whole.high:,}"
    shown = Table(
        title=f"nats per source token by position; {n} documents of {length} tokens, trained on {trained:,}",
        caption=f"Effective length: up to which {KEPT_SHARE:.0%} of the probability is kept that the same tokens have "
        "where windows slide.",
    )
    shown.add_column("read")
    for stretch in first.stretches:
        shown.add_column(f"{stretch.low:,} to {stretch.high - 1:,}", justify="right")
    for name in ("all", "perplexity", "bits per byte", "effective length"):
        shown.add_column(name, justify="right")
    for one, kept in zip(found, lengths, strict=True):
        way, longest = one.way, one.whole.high / trained
        cells = [f"{stretch.nats:.4f}" for stretch in (*one.stretches, one.whole)]
        shown.add_row(
            "whole" if way.name == "whole" else f"{way.name} of {way.window:,}, by {way.stride:,}",
            *cells,
            f"{math.exp(one.whole.nats):,.2f}",
            f"{one.whole.bits_per_byte:.4f}",
            "" if kept is None else f"{kept:g}x{' or more' * (kept >= longest)}",
        )
    return shown
