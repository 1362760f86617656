"""A run that goes on ends like one that never stopped; what would change the numbers is refused."""

import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.system.helpers import curve, run, succeed
from tests.system.torture import TASK, TEXT, differences

Options = list[str]


@pytest.fixture(scope="module")
def text(quick: Options) -> Options:
    """Twelve optimiser steps of two micro-batches each, with dropout, validated after steps 4, 8 and 12."""
    return [*quick, *TEXT, "--model.optimizer.decay_steps=12"]


@pytest.fixture(scope="module")
def task(repository: Path) -> Options:
    """Twelve steps of a recall task in two phases; the second begins at step 5."""
    return [
        f"--config={repository / 'conf' / 'task' / 'list_recall_nano.yaml'}",
        *TASK,
        "--model.optimizer.decay_steps=12",
    ]


@pytest.fixture(scope="module")
def whole(text: Options, task: Options, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run of each kind that never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    for kind, options in (("text", text), ("task", task)):
        succeed("fit", *options, f"--run_dir={folder / kind}")
    return {kind: folder / kind for kind in ("text", "task")}


@pytest.mark.parametrize(
    ("kind", "stops", "workers"),
    [
        ("text", [3], (0, 0)),  # between two validations
        ("text", [4, 5, 8], (2, 0, 2, 0)),  # just after a validation, one step on, again: three resumes
        ("task", [4, 5], (0, 2, 0)),  # before a phase begins, as it begins
        ("task", [7], (2, 2)),  # within a phase
    ],
)
def test_the_end_is_the_same(
    kind: str, stops: list[int], workers: tuple[int, ...], text: Options, task: Options, whole: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    options = [*(text if kind == "text" else task), f"--run_dir={tmp_path / 'run'}", "--ckpt_path=auto"]
    for steps, count in zip((*stops, 12), workers, strict=True):
        random.seed()  # what another process left in the generators must not matter
        torch.manual_seed(random.randrange(2**31))
        succeed("fit", *options, f"--trainer.max_steps={steps}", f"--data.num_workers={count}")
    assert differences(tmp_path / "run", whole[kind]) == []
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    task: Options, whole: dict[str, Path], tmp_path: Path
) -> None:
    options = [*task, f"--run_dir={tmp_path / 'run'}"]
    succeed("fit", *options)
    newest = tmp_path / "run" / "checkpoints" / "step-12.ckpt"
    size = newest.stat().st_size
    newest.write_bytes(newest.read_bytes()[:-1])
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "loss/tr')  # torn by a kill
    outcome = run("fit", *options, "--ckpt_path=auto")
    assert outcome.code == 0
    assert outcome.err.splitlines() == [
        f"lightning-metatok: warning: {newest} is skipped: step-12.ckpt has {size - 1} bytes, its manifest says {size}"
    ]
    assert differences(tmp_path / "run", whole["task"]) == []
    for path in (tmp_path / "run" / "checkpoints").glob("*.json"):
        path.unlink()
    outcome = run("fit", *options, "--ckpt_path=auto")  # none is left that counts: nothing is touched
    assert (outcome.code, len(outcome.err.splitlines())) == (2, 1)
    assert "step-12.json is missing" in outcome.err
    assert differences(tmp_path / "run", whole["task"]) == []


def test_a_changed_configuration_is_refused_unless_allowed_by_name(task: Options, tmp_path: Path) -> None:
    options = [*task, f"--run_dir={tmp_path / 'run'}"]
    succeed("fit", *options, "--trainer.max_steps=2")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    changed = ["--model.optimizer.lr=1e-2", "--data.meta_fraction=0", "--data.batch_size=4", "--ckpt_path=auto"]
    outcome = run("fit", *options, *changed)
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    for part in ("model.optimizer.lr=0.01 (was 0.02)", "data.meta_fraction=", "data.batch_size=4 on 1 ranks"):
        assert part in outcome.err
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    allowed = "--allow_changed=[model.optimizer.lr,data.batch_size]"
    outcome = run("fit", *options, *changed, allowed)
    assert (outcome.code, "optimizer" in outcome.err, "data.meta_fraction" in outcome.err) == (2, False, True)
    kept = [option for option in changed if "meta_fraction" not in option]
    succeed("fit", *options, *kept, allowed, "--trainer.max_steps=4")
    rates = curve(tmp_path / "run", "optimizer/learning_rate")
    assert all(rate > 0.011 for _, rate in rates[:2])
    assert all(rate < 0.011 for _, rate in rates[2:])
    assert len(rates) == 4


def test_wall_clock_goes_on(task: Options, tmp_path: Path) -> None:
    seconds = []
    for steps in (2, 4):
        succeed("fit", *task, f"--run_dir={tmp_path / 'run'}", "--ckpt_path=auto", f"--trainer.max_steps={steps}")
        saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
        seconds.append(saved["callbacks"]["RunState"]["seconds"])
    assert 0 < seconds[0] < seconds[1]


# -- another number of processes


def two_ranks(options: Options, folder: Path, log: Path, signals: dict[int, int] | None = None) -> list[int]:
    """Train in two processes of DDP over gloo; `signals` are sent to ranks once they train. The exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    folder.mkdir(exist_ok=True)
    around = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LIGHTNING_METATOK_RUN_DIR": str(folder)}
    around["PYTHONPATH"] = str(Path(__file__).parents[2])
    ddp = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    ranks = []
    for rank in range(2):
        with log.with_name(f"{log.name}-{rank}").open("a") as file:
            command = [sys.executable, "-m", "lightning_metatok", *options, *ddp]
            environment = {**os.environ, **around, "LOCAL_RANK": str(rank)}
            ranks.append(subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=log.parent))
    try:
        for rank, number in (signals or {}).items():
            while not (folder / "metrics.jsonl").exists() and ranks[rank].poll() is None:
                time.sleep(0.01)
            ranks[rank].send_signal(number)
        return [rank.wait(timeout=600) for rank in ranks]
    finally:
        for process in ranks:
            process.kill()


def said(folder: Path) -> str:
    return "\n".join(path.read_text() for path in folder.glob("log-*"))


@pytest.mark.slow
def test_two_processes_then_one_then_two_see_the_data_of_one(task: Options, tmp_path: Path) -> None:
    """Same batches in the same order, losses within 1e-4: gradients are summed in another order."""
    options = ["fit", *task, "--model.dropout=0"]
    succeed(*options, f"--run_dir={tmp_path / 'one'}")
    parts = [*options, f"--run_dir={tmp_path / 'parts'}", "--ckpt_path=auto"]
    assert two_ranks([*parts, "--data.batch_size=4", "--trainer.max_steps=3"], tmp_path / "parts", tmp_path / "log") \
        == [0, 0], said(tmp_path)  # fmt: skip
    succeed(*parts, "--data.batch_size=8", "--trainer.max_steps=7")
    assert two_ranks([*parts, "--data.batch_size=4"], tmp_path / "parts", tmp_path / "log") == [0, 0], said(tmp_path)
    for name in ("throughput/source_tokens", "throughput/tokens", "curriculum/phase"):
        assert curve(tmp_path / "parts", name) == curve(tmp_path / "one", name), name
    for name in ("loss/val", "accuracy/exact/val", "optimizer/grad_norm"):
        one, other = (curve(tmp_path / folder, name) for folder in ("one", "parts"))
        assert [step for step, _ in other] == [step for step, _ in one], name
        assert [value for _, value in other] == pytest.approx([value for _, value in one], rel=1e-4), name


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_both_at_the_same_step(task: Options, tmp_path: Path) -> None:
    options = [
        "fit",
        *task,
        "--data.batch_size=4",
        "--trainer.max_steps=2000",
        f"--run_dir={tmp_path / 'run'}",
        "--ckpt_path=auto",
    ]
    assert two_ranks(options, tmp_path / "run", tmp_path / "log", {1: 15}) == [143, 143], said(tmp_path)
    manifests = sorted((tmp_path / "run" / "checkpoints").glob("*.json"), key=os.path.getmtime)
    step = json.loads(manifests[-1].read_text())["step"]
    assert 1 <= step < 2000
    assert [made for made, _ in curve(tmp_path / "run", "loss/train")][-1] == step
