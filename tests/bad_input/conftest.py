"""What every bad input is checked for, and the good run that each of them spoils in one place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.conftest import checkpoint, corpus, debug, fitted  # noqa: F401  (fixtures)
from tests.system.helpers import run

Refused = Callable[..., str]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """A function that runs a command, checks how it fails and that it wrote nothing, and returns its one line."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("LIGHTNING_METATOK_CACHE", str(cache))

    def check(*arguments: str | Path) -> str:
        before = contents(tmp_path)
        outcome = run(*arguments)
        assert outcome.code == 2, outcome
        assert outcome.err.startswith("lightning-metatok: error: ")
        assert outcome.err.count("\n") == 1, outcome.err
        assert outcome.err.endswith("\n")
        assert "Traceback" not in outcome.err
        assert not (tmp_path / "run").exists(), "a start that fails leaves no run folder"
        after = contents(tmp_path)
        # Whole caches may stay, and the locks beside them; nothing half-built may.
        new = [name for name in after if name not in before and not name.startswith(str(cache))]
        assert not new, "nothing is written"
        assert not list(cache.rglob("*.partial"))
        assert {name: after.get(name) for name in before} == before, "nothing is changed"
        return outcome.err

    return check


@pytest.fixture
def fit(debug: list[str], tmp_path: Path) -> list[str]:  # noqa: F811
    """The start of a command that would train."""
    return ["fit", *debug, f"--run_dir={tmp_path / 'run'}"]
