"""One corpus and one fitted run, shared by all system tests; tests read the run and never change it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.helpers import succeed, write_corpus
from tests.system.torture import Undisturbed

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup; the runs here are asked to heed it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

IN_MAKE_TEST = ("test_golden_loss.py", "test_readme.py")
"""Of this folder; the rest are whole runs in processes of their own, most of them of several runs: `make test-slow`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what stands here."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name not in IN_MAKE_TEST:
            item.add_marker("slow")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 250 kB of text in a hundred documents."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "stories.jsonl")


@pytest.fixture(scope="session")
def debug(repository: Path, corpus: Path) -> list[str]:
    """Options of a run of twenty tiny steps on `corpus`."""
    return [f"--config={repository / 'conf' / 'debug.yaml'}", f"--data.corpus={corpus}"]


@pytest.fixture(scope="session")
def quick(debug: list[str]) -> list[str]:
    """The same without what only reports: text samples, the bigram model, contexts longer than trained."""
    return [*debug, "--bigram.enabled=false", "--ablation.multiples=[1]", "--ablation.windows=1"]


@pytest.fixture(scope="session")
def fitted(debug: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "debug"
    succeed("fit", *debug, f"--run_dir={folder}")
    return folder


@pytest.fixture(scope="session")
def checkpoint(fitted: Path) -> Path:
    """Its last checkpoint."""
    return fitted / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="session")
def undisturbed(quick: list[str], repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(quick, repository, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root on Linux")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
