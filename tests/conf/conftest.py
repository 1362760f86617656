"""What tests of configurations share."""

from pathlib import Path

import pytest

from tests.system.helpers import write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 100 kB of text."""
    return write_corpus(tmp_path_factory.mktemp("corpus") / "stories.jsonl", count=40)
