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
