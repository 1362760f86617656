"""A signal in long work that is no training step ends it at its next unit; the run that goes on ends as the others."""

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_metatok.analysis import bigram
from lightning_metatok.data import writing
from lightning_metatok.lit import MetaTokenDataModule, MetaTokenLM, TaskDataModule
from lightning_metatok.lit.answers import ask
from lightning_metatok.lit.callbacks import Curriculum
from lightning_metatok.lit.checkpoints.folder import newest_valid
from lightning_metatok.lit.checkpoints.io import read_state
from lightning_metatok.tasks import Task
from tests.system.helpers import Outcome, lines, run
from tests.system.torture import Undisturbed, differences

Strike = Callable[[Any, str, int, int], list[int]]


@pytest.fixture
def strike(monkeypatch: pytest.MonkeyPatch) -> Strike:
    """A function that lets the `nth` call of `owner.name` send this process a signal; it returns the calls so far."""

    def arrange(owner: Any, name: str, nth: int, number: int) -> list[int]:
        inner, calls = getattr(owner, name), [0]

        def striking(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == nth:
                os.kill(os.getpid(), number)
            return inner(*args, **kwargs)

        monkeypatch.setattr(owner, name, striking)
        return calls

    return arrange


def begin(undisturbed: Undisturbed, kind: str, tmp_path: Path, *options: str) -> tuple[Outcome, list[str], Path]:
    """Start a run in this process that is going to be struck: its outcome, its command, and the undisturbed one."""
    whole, _ = undisturbed(kind)
    command = [*undisturbed.commands[kind], f"--run_dir={tmp_path / 'run'}", "--ckpt_path=auto", *options]
    return run(*command), command, whole


def stopped(outcome: Outcome, number: int, step: int, lost: str) -> None:
    """Exit code and one line, which says at which step and what is done again."""
    assert outcome.code == 128 + number, outcome
    line = outcome.err.splitlines()[-1]
    assert line.startswith(f"lightning-metatok: stopped by {signal.Signals(number).name} at step {step} ({lost}); ")
    assert "Traceback" not in outcome.err


INSIDE = {
    # kind, whose nth call strikes, and the step that is saved
    "a validation": ("text", MetaTokenLM, "validation_step", 3, 4),  # two are of the sanity check
    "an ablation": ("text", MetaTokenDataModule, "context_batches", 1, 4),
    "a later ablation": ("text", MetaTokenDataModule, "context_batches", 2, 8),
    "the last validation": ("text", MetaTokenDataModule, "context_batches", 3, 12),
    "the questions of a phase": ("task", Curriculum, "on_validation_end", 2, 4),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("where", INSIDE)
def test_a_validation_is_left_and_made_anew(
    where: str, number: int, undisturbed: Undisturbed, strike: Strike, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kind, owner, name, nth, step = INSIDE[where]
    if number == signal.SIGUSR1 and where != "a validation":
        pytest.skip("one place is enough for the other signal")
    undisturbed(kind)
    strike(owner, name, nth, number)
    outcome, command, whole = begin(undisturbed, kind, tmp_path)
    stopped(outcome, number, step, "the validation there is made anew")
    found = newest_valid(tmp_path / "run" / "checkpoints", lambda message: pytest.fail(message))
    assert found is not None
    assert read_state(found, key="x")["global_step"] == step
    monkeypatch.undo()
    assert run(*command).code == 0
    assert differences(tmp_path / "run", whole) == []
    steps = [line["step"] for line in lines(tmp_path / "run") if "loss/val" in line]
    assert steps == sorted(set(steps)), "no validation is made twice, or left out"


@pytest.mark.slow
def test_a_validation_that_is_owed_can_be_left_again(
    undisturbed: Undisturbed, strike: Strike, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    undisturbed("text")
    strike(MetaTokenDataModule, "context_batches", 1, signal.SIGTERM)
    outcome, command, whole = begin(undisturbed, "text", tmp_path)
    stopped(outcome, signal.SIGTERM, 4, "the validation there is made anew")
    monkeypatch.undo()
    strike(MetaTokenDataModule, "context_batches", 1, signal.SIGTERM)
    stopped(run(*command), signal.SIGTERM, 4, "the validation there is made anew")
    monkeypatch.undo()
    assert run(*command).code == 0
    assert differences(tmp_path / "run", whole) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_study_behind_the_last_step_heeds_signals_between_batches(
    number: int, undisturbed: Undisturbed, strike: Strike, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, _ = undisturbed("task")
    seen = strike(ask, "_answered", 10**9, number)
    run(*undisturbed.commands["task"], f"--run_dir={tmp_path / 'counting'}")
    monkeypatch.undo()
    calls = strike(ask, "_answered", seen[0] - 2, number)
    outcome, command, _ = begin(undisturbed, "task", tmp_path)
    stopped(outcome, number, 12, "the answers behind the last step are asked anew")
    assert calls[0] == seen[0] - 2, "nothing was asked after that"
    assert not (tmp_path / "run" / "answers.csv").exists()
    monkeypatch.undo()
    assert run(*command).code == 0
    assert differences(tmp_path / "run", whole) == []
    assert (tmp_path / "run" / "answers.csv").read_text() == (whole / "answers.csv").read_text()


def test_a_run_that_is_done_but_for_its_study_does_not_come_back_on_sigusr1(
    undisturbed: Undisturbed, strike: Strike, tmp_path: Path
) -> None:
    undisturbed("task")
    strike(TaskDataModule, "evaluation_examples", 1, signal.SIGUSR1)
    outcome, _, whole = begin(undisturbed, "task", tmp_path)
    assert outcome.code == 0, outcome
    assert differences(tmp_path / "run", whole) == []


BEFORE = {
    "tokenising": ("text", writing, "write_stream", [], "text that was tokenised is kept"),
    "filling a set": ("task", Task, "examples", ["--data.train_examples=5000"], "data are prepared anew"),
    "counting bigrams": ("text", bigram, "pair_keys", ["--bigram.enabled=true"], "bigrams are counted anew"),
}


@pytest.mark.parametrize("where", BEFORE)
def test_what_stands_before_training_is_left_without_a_trace(
    where: str, undisturbed: Undisturbed, strike: Strike, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kind, owner, name, options, lost = BEFORE[where]
    monkeypatch.setenv("LIGHTNING_METATOK_CACHE", str(tmp_path / "cache"))
    strike(owner, name, 1, signal.SIGTERM)
    outcome = begin(undisturbed, kind, tmp_path, *options)[0]
    stopped(outcome, signal.SIGTERM, 0, lost)
    kept = [path.name for path in (tmp_path / "cache").rglob("*.partial/*")]
    assert ("train.written.json" in kept) if where == "tokenising" else not kept
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def asked(folder: Path) -> set[str]:
    """How many prompts each condition was asked."""
    return {row["n"] for row in csv.DictReader((folder / "answers.csv").read_text().splitlines())}


def test_a_short_run_is_asked_few_questions_and_an_option_wins(undisturbed: Undisturbed, tmp_path: Path) -> None:
    few = [option for option in undisturbed.commands["task"] if ".n=" not in option]
    said = run(*few, f"--run_dir={tmp_path / 'follows'}", "--data.batch_size=32").out
    assert "answers: 24 prompts a condition, as this run saw 384 in training; 1,000 from 16,000 on" in said
    assert asked(tmp_path / "follows") == {"24"}
    numbers = [f"--{name}.n=30" for name in ("lengths", "positions", "embedding", "placement")]
    said = run(*few, *numbers, f"--run_dir={tmp_path / 'given'}").out
    assert "prompts a condition" not in said
    assert asked(tmp_path / "given") == {"30"}
