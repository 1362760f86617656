"""One corpus and one fitted run, shared by all system tests; tests read the run and never change it."""

from pathlib import Path

import pytest

from tests.system.helpers import succeed, write_corpus


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
