"""`estimate`: a configuration's cost without building, reading or training anything."""

import resource
from pathlib import Path

import pytest

from tests.system.helpers import run

BILLION = "conf/metatok_1b_c4.yaml"


def test_it_says_parameters_memory_speed_and_what_is_not_measured(repository: Path, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = run("estimate", f"--config={repository / BILLION}", f"--run_dir={tmp_path / 'run'}", "--gpus", "1", "64")
    assert (outcome.code, outcome.err) == (0, "")
    assert "parameters: 1,176,864,768 (" in outcome.out
    assert "not measured" in outcome.out
    for mode in ("ddp:", "zero2:", "fsdp2:"):
        assert mode in outcome.out
    assert not (tmp_path / "run").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000, "kB: no weight has memory"


def test_a_measured_speed_takes_the_place_of_the_assumed_one(repository: Path) -> None:
    given = ["--gpus", "1", "--measured_tokens_per_s", "10000"]
    outcome = run("estimate", f"--config={repository / BILLION}", *given)
    assert outcome.code == 0
    assert "one GPU alone: 10,000 tokens/s (measured, as given)" in outcome.out
    assert f"{25_000 * 1_048_576 / 10_000 / 86_400:.1f}" in outcome.out  # days


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--hardware=a10"], "--hardware=a10: expected one of a100, h100"),
        (["--mfu=0"], "--mfu=0.0: expected a share"),
        (["--gpus", "0"], "--gpus=0: expected 1 to 512"),
        (["--gpus", "x"], "--gpus: invalid int value"),
        (["--memory_gb=-1"], "--memory_gb=-1.0: expected a positive number"),
        (["--model.n_layer=2"], "did you mean"),
        (["--trainer.precision=64-true"], "trainer.precision='64-true': expected one of"),
    ],
)
def test_a_mistake_is_one_line(given: list[str], expected: str, repository: Path) -> None:
    outcome = run("estimate", f"--config={repository / BILLION}", *given)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
    assert expected in outcome.err


def test_a_task_and_no_configuration_are_refused(repository: Path) -> None:
    task = repository / "conf" / "task" / "list_recall_nano.yaml"
    for given, expected in (([f"--config={task}"], "data.task: expected text"), ([], "--config: expected")):
        outcome = run("estimate", *given)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert expected in outcome.err
