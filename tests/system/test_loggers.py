"""A run's records are written whatever other loggers there are, so that every verb can read the run."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import wandb
from lightning.pytorch.loggers.logger import Logger

from tests.system.helpers import TINY_TASK, curve, lines, run, succeed
from tests.system.torture import events


class OwnLogger(Logger):
    """Somebody's logger that keeps a list, and knows nothing of folders."""

    kept: ClassVar[list[tuple[int | None, dict[str, float]]]] = []

    @property
    def name(self) -> str:
        return "own"

    @property
    def version(self) -> int:
        return 0

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.kept.append((step, dict(metrics)))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        pass


OWN = f"{__name__}.{OwnLogger.__name__}"
LOGGERS = {
    "false": ["--trainer.logger=false"],
    "true": ["--trainer.logger=true"],
    "null": ["--trainer.logger=null"],
    "CSVLogger": ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir={place}"],
    "TensorBoardLogger": ["--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir={place}"],
    "two": [
        "--trainer.logger=[{{class_path: CSVLogger, init_args: {{save_dir: {place}}}}}, "
        "{{class_path: TensorBoardLogger, init_args: {{save_dir: {place}}}}}]"
    ],
    "none": ["--trainer.logger=[]"],
    "own": [f"--trainer.logger={OWN}"],
    "elsewhere": [
        "--trainer.logger=[{{class_path: WandbLogger, init_args: {{save_dir: {place}, offline: true}}}}, "
        "{{class_path: MLFlowLogger, init_args: {{save_dir: {place}/mlruns}}}}]"
    ],
}


def options(kind: str, place: Path) -> list[str]:
    return [option.format(place=place) for option in LOGGERS[kind]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOGGERS)
def test_records_are_written_and_compare_reads_them(
    kind: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    OwnLogger.kept.clear()

    def fit(*arguments: str) -> None:
        outcome = run(*arguments)
        assert outcome.code == 0, outcome
        assert ("look at it: " in outcome.out) == (kind in ("true", "null"))
        # Lightning passes an argument that W&B no longer heeds.
        assert [line for line in outcome.err.splitlines() if not line.startswith("wandb: WARNING The anonymous")] == []

    folder, place = tmp_path / "run", tmp_path / "theirs"
    config = f"--config={repository / 'conf' / 'task' / 'list_recall_nano.yaml'}"
    questions = [f"--{name}.n=4" for name in ("lengths", "positions", "embedding", "placement")]
    command = ["fit", config, *TINY_TASK, *questions, *options(kind, place), f"--run_dir={folder}"]
    fit(*command)
    assert {step for step, _ in curve(folder, "loss/val")} == {2}
    assert json.loads((folder / "arm.json").read_text())["arm"] == "meta"
    assert list(folder.glob("answers*.png"))
    assert "loss/val" in succeed("compare", folder, "--metric=loss/val")
    ours = kind in ("true", "null")
    assert len(list(folder.glob("events.out.tfevents.*"))) == ours
    if kind in ("CSVLogger", "two"):
        assert "loss/val" in next(place.rglob("metrics.csv")).read_text()
    if kind in ("TensorBoardLogger", "two"):
        assert any(tag == "loss/val" for path in place.rglob("events*") for _, tag, _ in events(path))
    if kind == "own":
        assert any("loss/val" in metrics for _, metrics in OwnLogger.kept)
    if kind == "elsewhere":
        (logged,) = (place / "mlruns").glob("*/*/metrics/loss/val")
        assert [line.split()[-1] for line in logged.read_text().splitlines()] == ["2"]  # time, value, step
        wandb.finish()  # a process of its own writes the file
        (offline,) = place.glob("wandb/offline-run-*/*.wandb")
        assert b"loss/val" in offline.read_bytes()
    before = lines(folder)
    fit(*command, "--ckpt_path=auto")  # it goes on as it would with any logger
    wandb.finish()
    assert len(lines(folder)) >= len(before)


def test_a_text_run_without_loggers_has_its_pictures(quick: list[str], tmp_path: Path) -> None:
    succeed("fit", *quick, "--trainer.logger=false", "--trainer.max_steps=5", "--trainer.val_check_interval=5",
            f"--run_dir={tmp_path / 'run'}")  # fmt: skip
    for name in ("run.png", "ablation.png", "metrics.jsonl", "arm.json", "environment.json"):
        assert (tmp_path / "run" / name).stat().st_size > 0


def test_a_logger_without_its_folder_is_told_in_one_line(quick: list[str], tmp_path: Path) -> None:
    for given in ("CSVLogger", "[{class_path: CSVLogger}]"):
        outcome = run("fit", *quick, f"--trainer.logger={given}", f"--run_dir={tmp_path / 'run'}")
        assert (outcome.code, list(tmp_path.iterdir())) == (2, [])
        assert outcome.err == (
            "lightning-metatok: error: trainer.logger=CSVLogger: save_dir is missing; "
            "expected --trainer.logger.save_dir=VALUE, too\n"
        )


@pytest.mark.parametrize(
    ("logger", "reason"),
    [("CometLogger", "Requirement 'comet-ml"), ("MLFlowLogger", "set `MLFLOW_ALLOW_FILE_STORE=true`")],
)
def test_what_a_logger_lacks_is_told_in_one_line(
    logger: str, reason: str, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    for given in (logger, f"[{logger}]"):
        outcome = run("fit", *quick, f"--trainer.logger={given}", f"--run_dir={tmp_path / 'run'}")
        assert (outcome.code, outcome.err.count("\n"), list(tmp_path.iterdir())) == (2, 1, [])
        assert outcome.err.startswith(f"lightning-metatok: error: {logger}: ")
        assert reason in outcome.err


def test_a_dry_run_of_one_batch_needs_no_logger(quick: list[str], tmp_path: Path) -> None:
    succeed("fit", *quick, "--trainer.fast_dev_run=true", f"--run_dir={tmp_path / 'run'}")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_verbs_that_read_a_checkpoint_log_once_at_its_step(
    verb: str, fitted: Path, checkpoint: Path, tmp_path: Path
) -> None:
    config = f"--config={fitted / 'config.yaml'}"
    copied = tmp_path / "step-20.ckpt"  # outside of its run: the folder of `fitted` stays as it is
    copied.write_bytes(checkpoint.read_bytes())
    succeed(verb, config, f"--ckpt_path={copied}", f"--run_dir={tmp_path / 'run'}")
    found = lines(tmp_path / "run" / verb)
    assert {line["step"] for line in found} == {20}
    names = [name for line in found for name in line if name != "step"]
    assert len(names) == len(set(names))
    assert f"loss/{'val' if verb == 'validate' else 'test'}" in names
    (path,) = (tmp_path / "run" / verb).glob("events*")
    assert {step for step, _, _ in events(path)} == {20}
