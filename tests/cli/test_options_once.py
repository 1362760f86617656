"""Parsers are made once a process, and no parse leaves anything for the next."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from lightning_metatok.cli import options
from lightning_metatok.cli.interpolations import Records
from lightning_metatok.cli.reading import read_configuration
from lightning_metatok.errors import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"
DEBUG = f"--config={CONF / 'debug.yaml'}"
CALLS = {
    "defaults": [],
    "references": [DEBUG, "--model.d_model=${data.batch_size}", "--trainer.max_steps=7"],
    "an arm": [DEBUG, f"--config={CONF / 'arm' / 'landmark.yaml'}", "--run_dir=${oc.env:HOME}", "--seed.weights=3"],
    "classes": [
        DEBUG,
        "--trainer.logger=lightning.pytorch.loggers.CSVLogger",
        "--trainer.logger.save_dir=logs",
        "--trainer.callbacks+=lightning.pytorch.callbacks.LearningRateMonitor",
        "--trainer.plugins=null",
    ],
    "dropped": [DEBUG, "--model.position_options={base: 500}", "--model.position=alibi"],
    "lists": [DEBUG, "--ablation.multiples=[1,2]", "--allow_changed+=model.dropout", "--trainer.limit_val_batches=1"],
    "a mistake": [DEBUG, "--model.optimizer.lr=fast"],
    "a task": [f"--config={CONF / 'task' / 'list_recall_nano.yaml'}", "--data.task_options.n_lists=2"],
}
"""Calls whose options differ, so that what one leaves would show in another."""


def outcome(name: str) -> str:
    """What is read of a call: values, the text of config.yaml, what is kept, what is said."""
    try:
        cli, _ = read_configuration("fit", CALLS[name])
    except UserError as error:
        return str(error)
    records = Records(cli.parser)
    said = [records.text(cli.config, "there"), records.values(cli.config), cli.dropped, str(cli.config)]
    return json.dumps([*said, cli.parser.format_usage()], default=str)


@pytest.fixture(scope="module")
def alone() -> dict[str, str]:
    """The outcome of each call, by a parser that has read nothing else."""
    found = {}
    for name in CALLS:
        options.MADE.clear()
        found[name] = outcome(name)
    return found


def test_calls_differ_and_one_is_refused(alone: dict[str, str]) -> None:
    assert len(set(alone.values())) == len(CALLS)
    assert alone["a mistake"].startswith("model.optimizer.lr=fast: ")


def test_a_parse_leaves_nothing_for_the_next(alone: dict[str, str]) -> None:
    made = dict(options.MADE)
    order = [*CALLS, *reversed(CALLS)]
    for before, name in pairwise(order):
        assert outcome(name) == alone[name], f"{name} after {before}"
    assert {kind: options.MADE[kind] for kind in made} == made  # nothing was made anew


def test_two_commands_at_once_do_not_meet() -> None:
    one, _ = read_configuration("fit", CALLS["references"])
    before = Records(one.parser).text(one.config, "there")
    other, _ = read_configuration("show", CALLS["an arm"])
    assert Records(one.parser).text(one.config, "there") == before
    assert (one.parser.prog, other.parser.prog) == ("lightning-metatok fit", "lightning-metatok show")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classes", "a task"])
def test_a_fresh_process_reads_the_same(alone: dict[str, str], name: str, repository: Path) -> None:
    code = f"from tests.cli.test_options_once import outcome; print(outcome({name!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, timeout=300)
    assert done.stdout.rstrip("\n").splitlines()[-1] == alone[name], done.stderr
