"""Folders that cannot be made and disks that are full: named in one line; a later run works."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bad_input.conftest import Refused
from tests.system.conftest import quick  # noqa: F401  (a fixture)
from tests.system.helpers import run, succeed


def test_a_file_in_the_way_of_the_run_folder_is_named(debug: list[str], refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = refused("fit", *debug, f"--run_dir={tmp_path / 'file' / 'run'}")
    assert f"run_dir={tmp_path / 'file' / 'run'}" in line


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["C", "tr_TR.UTF-8"])
def test_a_mistake_says_one_line_in_a_fresh_process(locale: str, repository: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lightning_metatok", "fit", f"--config={repository}/conf/debug.yaml",
         f"--run_dir={tmp_path}/run", "--data.corpus=nowhere.txt"],
        capture_output=True, text=True, check=False, cwd=tmp_path, 
        env={**os.environ, "PYTHONPATH": str(repository), "LC_ALL": locale, "LANG": locale, "TMPDIR": "/dev/shm"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "lightning-metatok: error: data.corpus='nowhere.txt': no such file\n"
    assert list(tmp_path.iterdir()) == []


PLACES = ["run.lock", "metrics.jsonl", "config.yaml", "tokenizer.json", "arm.json", "environment.json", "run.png",
          "events.out.tfevents.1.host.2"]  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_a_folder_where_a_file_of_the_run_belongs_is_named(
    name: str, fit: list[str], refused: Refused, tmp_path: Path
) -> None:
    folder = tmp_path / "there"
    (folder / name).mkdir(parents=True)
    line = refused(*fit, f"--run_dir={folder}", "--ckpt_path=auto")
    assert f"run_dir={folder}: {name}: expected a file, this is a folder" in line


@pytest.mark.parametrize("name", ["checkpoints", "nonfinite", "logs", "put-aside"])
@pytest.mark.parametrize("link", [False, True])
def test_a_file_or_a_dead_link_where_a_folder_of_the_run_belongs_is_named(
    name: str, link: bool, fit: list[str], refused: Refused, tmp_path: Path
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / name).symlink_to("/nowhere/at/all") if link else (folder / name).touch()
    line = refused(*fit, f"--run_dir={folder}", "--ckpt_path=auto")
    what = "a link to /nowhere/at/all, which is missing" if link else "a file"
    assert f"run_dir={folder}: {name}: expected a folder, this is {what}" in line


def test_a_folder_where_a_checkpoint_belongs_is_named(fit: list[str], refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "there" / "checkpoints" / "step-99.ckpt"
    path.mkdir(parents=True)
    assert "expected a file, this is a folder" in refused(*fit, f"--ckpt_path={path}")
    (tmp_path / "there" / "run.lock").touch()  # every run has one, and keeps it
    assert "step-99.json is missing" in refused(*fit, f"--run_dir={tmp_path / 'there'}", "--ckpt_path=auto")


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "option",
    [
        "--trainer.precision=16x",
        "--trainer.devices=99999999999",
        "--trainer.limit_val_batches=1.5",
        "--trainer.gradient_clip_algorithm=median",
        "--trainer.logger=CSVLogger",
        "--data.corpus=nowhere.txt",
    ],
)
@pytest.mark.parametrize("auto", [False, True])
def test_nothing_stays_of_a_run_that_is_refused_not_even_the_folders_above(
    option: str, auto: bool, fit: list[str], refused: Refused, tmp_path: Path
) -> None:
    refused(*fit, f"--run_dir={tmp_path / 'a' / 'b' / 'c'}", option, *(["--ckpt_path=auto"] if auto else []))
    assert not (tmp_path / "a").exists()
    (tmp_path / "a" / "empty").mkdir(parents=True)  # what was there before stays
    refused(*fit, f"--run_dir={tmp_path / 'a' / 'empty'}", option)
    assert list((tmp_path / "a").rglob("*")) == [tmp_path / "a" / "empty"]


def test_a_refused_run_beside_another_one_leaves_that_one_alone(
    fit: list[str], refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "a" / "x").mkdir(parents=True)
    (tmp_path / "a" / "x" / "config.yaml").write_text("mine")
    refused(*fit, f"--run_dir={tmp_path / 'a' / 'x'}", "--trainer.limit_val_batches=1.5")
    assert [path.name for path in (tmp_path / "a").rglob("*")] == ["x", "config.yaml"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small file system")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"mount of a tmpfs failed: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # memory maps and event files may still be open


def test_a_full_disk_under_the_cache_is_named_and_a_later_run_works(
    fit: list[str], small_disk: Path, tmp_path: Path
) -> None:
    options = [*fit, f"--data.cache_dir={small_disk}", "--trainer.max_steps=1", "--model.optimizer.warmup_steps=0"]
    outcome = run(*options)  # what was complete before, the tokenizer, may stay
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
    assert "no space left" in outcome.err
    assert str(small_disk) in outcome.err
    assert not (tmp_path / "run").exists()
    assert not [path for path in small_disk.rglob("*") if path.suffix == ".partial"]
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    succeed(*options)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_a_full_disk_under_the_run_folder_is_said_in_one_line(
    quick: list[str],  # noqa: F811
    small_disk: Path,
) -> None:
    outcome = run("fit", *quick, f"--run_dir={small_disk / 'run'}")
    assert outcome.code == 2, outcome
    assert outcome.err.count("\n") == 1, outcome.err
    assert "No space left on device" in outcome.err
