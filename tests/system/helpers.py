"""Runs through the command line in this process, the text that they read, and the numbers that they wrote."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_metatok.cli import main

SUBJECTS = ("the old miller", "a grey heron", "my sister", "every sailor", "the last train", "a quiet child")
VERBS = ("found", "carried", "remembered", "painted", "followed", "left behind")
OBJECTS = ("the lantern", "three letters", "a wooden bridge", "the northern road", "some bread", "an open door")
PLACES = ("in the valley", "before noon", "under the snow", "near the harbour", "without a word", "at low tide")
ENDINGS = (". ", ", and ", "; then ", "? ", ".\n", "! ")

TINY_TASK = (
    "--model.n_layers=2",
    "--model.n_heads=2",
    "--model.d_model=16",
    "--model.optimizer.warmup_steps=0",
    "--data.batch_size=2",
    "--data.validation_examples=8",
    "--data.test_examples=8",
    "--trainer.max_steps=2",
    "--trainer.val_check_interval=2",
    "--trainer.log_every_n_steps=1",
)
"""Two steps of a model that says nothing, laid over the configuration of a task."""


def documents(count: int, sentences: int = 40) -> Iterator[str]:
    """Texts of a small grammar, drawn by a linear congruential generator: the same on every machine and version."""
    state = 2509_16278
    for number in range(count):
        parts = [f"Chapter {number}.\n"]
        for _ in range(sentences):
            words = []
            for choices in (SUBJECTS, VERBS, OBJECTS, PLACES, ENDINGS):
                state = (6364136223846793005 * state + 1442695040888963407) % 2**64
                words.append(choices[(state >> 33) % len(choices)])
            parts.append(f"{' '.join(words[:4])} {(state >> 40) % 1000}{words[4]}")
        yield "".join(parts)


def write_corpus(path: Path, count: int = 100, field: str = "text") -> Path:
    """Write `count` documents of about 2.5 kB as JSON Lines."""
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in documents(count)), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


def run(*arguments: str | Path) -> Outcome:
    """Call `lightning-metatok` in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), without_progress(err.getvalue()))


def without_progress(err: str) -> str:
    """What stderr has beside the lines of progress, which a run of more than 15 seconds writes."""
    return re.sub(r"^.*: (\d+/\S+ steps|\d+%)  .*\n", "", err, flags=re.MULTILINE)


def succeed(*arguments: str | Path) -> str:
    """Call `lightning-metatok`, which must end well without a word on stderr; return its stdout."""
    outcome = run(*arguments)
    assert (outcome.code, outcome.err) == (0, ""), outcome
    return outcome.out


def lines(folder: Path) -> list[dict[str, Any]]:
    """Every line of `metrics.jsonl`."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    """(step, value) of one metric, in the order written."""
    return [(line["step"], line[name]) for line in lines(folder) if name in line]


def losses(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The training and validation curves."""
    return {name: curve(folder, name) for name in ("loss/train", "loss/val", "ablation/kept_1x", "ablation/dropped_4x")}
