"""A run's records are written whatever other loggers there are, so that every verb can read the run."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any, ClassVar

import pytest
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
}


def options(kind: str, place: Path) -> list[str]:
    return [option.format(place=place) for option in LOGGERS[kind]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOGGERS)
def test_records_are_written_and_compare_reads_them(kind: str, repository: Path, tmp_path: Path) -> None:
    OwnLogger.kept.clear()
    folder, place = tmp_path / "run", tmp_path / "theirs"
    config = f"--config={repository / 'conf' / 'task' / 'list_recall_nano.yaml'}"
    questions = [f"--{name}.n=4" for name in ("lengths", "positions", "embedding", "placement")]
    command = ["fit", config, *TINY_TASK, *questions, *options(kind, place), f"--run_dir={folder}"]
    succeed(*command)
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
    before = lines(folder)
    succeed(*command, "--ckpt_path=auto")  # it goes on as it would with any logger
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
