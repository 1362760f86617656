"""Training on a recall task from the command line: every verb, a resumed run, weights to start from, bad input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.system.helpers import curve, lines, run, succeed

TINY = [
    *("--model.n_layers=1", "--model.n_heads=2", "--model.d_model=16"),
    *("--model.optimizer.warmup_steps=0", "--model.optimizer.lr=2e-2"),
    *("--data.batch_size=8", "--data.validation_examples=40", "--data.test_examples=60"),
    *("--trainer.max_steps=12", "--trainer.val_check_interval=4", "--trainer.log_every_n_steps=1"),
    "--trainer.precision=32-true",
]


@pytest.fixture(scope="module")
def task(repository: Path) -> list[str]:
    """Options of a run of twelve tiny steps on list recall."""
    return [f"--config={repository / 'conf' / 'task' / 'list_recall_nano.yaml'}", *TINY]


@pytest.fixture(scope="module")
def fitted_task(task: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of such a run, in two phases."""
    folder = tmp_path_factory.mktemp("runs") / "task"
    curriculum = "[{options: {n_lists: [2, 2]}, steps: 6, accuracy: 0.9}, {options: {n_lists: [2, 3]}}]"
    succeed("fit", *task, f"--data.curriculum={curriculum}", f"--run_dir={folder}")
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The last weights of a run."""
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def assert_bit_equal(one: Path, other: Path) -> None:
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    assert [key for key in mine if not torch.equal(mine[key], theirs[key])] == []


# -- verbs


def test_a_fit_writes_losses_accuracies_and_tokens(fitted_task: Path) -> None:
    names = {path.relative_to(fitted_task).as_posix() for path in fitted_task.rglob("*") if path.is_file()}
    assert {"config.yaml", "metrics.jsonl", "tokenizer.json", "checkpoints/last.ckpt"} <= names
    assert [step for step, _ in curve(fitted_task, "loss/train")] == list(range(1, 13))
    for name in ("loss/val", "accuracy/token/val", "accuracy/exact/val", "curriculum/phase", "curriculum/accuracy"):
        assert [step for step, _ in curve(fitted_task, name)] == [4, 8, 12]
    assert [phase for _, phase in curve(fitted_task, "curriculum/phase")] == [1, 2, 2]
    assert not [name for line in lines(fitted_task) for name in line if "bits_per_byte" in name or "bigram" in name]
    tokens, source = (curve(fitted_task, f"throughput/{name}")[-1][1] for name in ("tokens", "source_tokens"))
    assert tokens - source == 12 * 8 * 2  # steps, prompts, marks around one list
    assert curve(fitted_task, "loss/val")[-1][1] < curve(fitted_task, "loss/val")[0][1]


def test_validate_finds_what_the_fit_found_and_test_asks_other_prompts(fitted_task: Path) -> None:
    last = fitted_task / "checkpoints" / "last.ckpt"
    succeed("validate", "--ckpt_path", last)
    for name in ("loss/val", "accuracy/exact/val"):
        assert curve(fitted_task / "validate", name)[-1][1] == curve(fitted_task, name)[-1][1]
    succeed("test", "--ckpt_path", last)
    loss, val = curve(fitted_task / "test", "loss/test")[-1][1], curve(fitted_task, "loss/val")[-1][1]
    assert loss == pytest.approx(val, rel=0.2)
    assert loss != val
    assert curve(fitted_task / "test", "accuracy/exact/test")


def test_predict_writes_the_loss_of_answers_alone(fitted_task: Path) -> None:
    succeed("predict", "--ckpt_path", fitted_task / "checkpoints" / "last.ckpt")
    written = (fitted_task / "predict" / "predictions-0.jsonl").read_text().splitlines()
    rows = [yaml.safe_load(line) for line in written]
    scored = [value for row in rows for value in row["nll"] if value is not None]
    assert len(rows) == len(scored) == 40  # one answer of one token each
    # Values are written with five digits.
    assert sum(scored) / 40 == pytest.approx(curve(fitted_task, "loss/val")[-1][1], abs=1e-5)


def test_the_saved_config_repeats_the_run_with_workers_too(fitted_task: Path, tmp_path: Path) -> None:
    config = fitted_task / "config.yaml"
    succeed("fit", "--config", config, "--data.num_workers=2", f"--run_dir={tmp_path}/again")
    assert_bit_equal(tmp_path / "again", fitted_task)
    assert yaml.safe_load(config.read_text())["data"]["task_options"]["n_queries"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("train_examples", ["null", "100"])
def test_a_resumed_run_ends_with_the_same_bits(train_examples: str, task: list[str], tmp_path: Path) -> None:
    options = [*task, f"--data.train_examples={train_examples}", "--model.dropout=0.1",
               "--model.optimizer.decay_steps=12", "--trainer.accumulate_grad_batches=2",
               "--checkpoint.every_n_steps=4",
               "--data.curriculum=[{options: {n_lists: [2, 2]}, steps: 5}, {}]"]  # fmt: skip
    succeed("fit", *options, f"--run_dir={tmp_path}/whole")
    succeed("fit", *options, "--trainer.max_steps=4", f"--run_dir={tmp_path}/parts")
    succeed("fit", "--ckpt_path", tmp_path / "parts/checkpoints/last.ckpt", "--trainer.max_steps=12")
    assert_bit_equal(tmp_path / "parts", tmp_path / "whole")
    for name in ("loss/train", "loss/val", "throughput/tokens", "curriculum/phase"):
        assert curve(tmp_path / "parts", name) == curve(tmp_path / "whole", name), name


# -- weights to start from


def test_text_tasks_start_from_a_language_model_and_bring_its_tokenizer(
    checkpoint: Path, task: list[str], tmp_path: Path
) -> None:
    shape = ["--model.n_layers=2", "--model.d_model=32", "--model.vocab_size=512", f"--model.init_from={checkpoint}"]
    options = [*task, *shape, "--data.task_options={rendering: text, n_lists: [2, 2]}", "--trainer.max_steps=4"]
    out = succeed("fit", *options, "--data.corpus=nowhere.txt", f"--run_dir={tmp_path}/run")
    assert "list_recall in text" in out
    theirs = (checkpoint.parents[1] / "tokenizer.json").read_text()
    assert (tmp_path / "run" / "tokenizer.json").read_text() == theirs
    succeed("validate", "--ckpt_path", tmp_path / "run/checkpoints/last.ckpt")


@pytest.mark.slow
def test_symbols_start_from_a_language_model_with_a_fresh_embedding(
    checkpoint: Path, task: list[str], tmp_path: Path
) -> None:
    shape = ["--model.n_layers=2", "--model.d_model=32", f"--model.init_from={checkpoint}"]
    refused = run("fit", *task, *shape, f"--run_dir={tmp_path}/run")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "model.init_new=[tokens]" in refused.err
    out = succeed(
        "fit", *task, *shape, "--model.init_new=[tokens]", "--trainer.max_steps=4", f"--run_dir={tmp_path}/run"
    )
    assert "fresh are the embedding of 128 ids (<|meta|> keeps its row); all other weights" in out
    succeed("test", "--ckpt_path", tmp_path / "run/checkpoints/last.ckpt")


# -- bad input


@pytest.fixture
def refused(task: list[str], tmp_path: Path) -> Callable[..., str]:
    """A function that runs a fit that must fail, and returns its one line."""

    def check(*options: Any) -> str:
        outcome = run("fit", *task, *options, f"--run_dir={tmp_path / 'run'}")
        assert outcome.code == 2, outcome
        assert outcome.err.startswith("lightning-metatok: error: ")
        assert outcome.err.count("\n") == 1, outcome.err
        assert "Traceback" not in outcome.err
        assert not (tmp_path / "run").exists()
        return outcome.err

    return check


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--data.task=list_recal"], "data.task='list_recal': expected one of"),
        (
            ["--data.meta_placement=hnt"],
            "data.meta_placement=hnt: expected one of hint, every, after, random, none; did you",
        ),
        (["--data.task_options.n_list=3"], "data.task_options.n_list: list_recall has no such option; did you mean"),
        (["--data.task_options.list_length=[3,40]"], "list_length=[3, 40]: expected two integers"),  # of a pool of 32
        (["--data.task_options.list_length=[-1,4]"], "list_length=[-1, 4]: expected two integers"),
        (["--data.task_options.n_lists=[30,30]", "--data.task_options.level=medium"], "do not fit level medium"),
        (["--data.curriculum=[{stps: 3}, {}]"], "data.curriculum[0]: unknown key 'stps'"),
        (["--data.curriculum=[{steps: 3, options: {n_list: 2}}, {}]"], "data.curriculum[0].options.n_list: "),
        (["--data.block_size=64"], "unknown option '--data.block_size'"),
        (["--bigram.enabled=false"], "unknown option '--bigram.enabled'"),
        (["--model.position=learned", "--model.max_positions=16"], "data.task=list_recall: prompts of up to"),
        (["--model.vocab_size=100"], "model.vocab_size=100: expected at least"),
        (["--model.init_new=[layers]"], "model.init_new=['layers']: expected model.init_from"),
    ],
)
def test_a_mistake_is_named(options: list[str], expected: str, refused: Callable[..., str]) -> None:
    assert expected in refused(*options)


def test_a_file_with_keys_of_text_data_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("data: {block_size: 64}\n")
    line = refused(f"--config={tmp_path / 'mine.yaml'}")
    assert f"{tmp_path / 'mine.yaml'}: unknown key 'data.block_size'" in line


def test_another_tokenizer_than_that_of_the_checkpoint_is_refused(
    fitted_task: Path, checkpoint: Path, refused: Callable[..., str]
) -> None:
    text = "--data.task_options={rendering: text, n_lists: [2, 2]}"
    other = f"--data.tokenizer={checkpoint.parents[1] / 'tokenizer.json'}"
    line = refused(text, other, "--data.curriculum=null", f"--ckpt_path={fitted_task / 'checkpoints' / 'last.ckpt'}")
    assert "data.tokenizer: the checkpoint's tokenizer (124 ids) is not that of the data (512 ids)" in line
