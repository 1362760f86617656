"""A small corpus, data module and model for the tests of the Lightning shell."""

from pathlib import Path
from typing import Any

import pytest

from lightning_metatok.lit import MetaTokenDataModule, MetaTokenLM

SENTENCES = ("the cat sat on the mat. ", "a dog ran to the old house, ", "where birds sing all day; ", "rain falls.\n")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 100 kB of text in a hundred documents."""
    path = tmp_path_factory.mktemp("corpus") / "text.jsonl"
    lines = []
    for document in range(100):
        text = "".join(SENTENCES[(document * 7 + i * i) % 4] for i in range(45))
        lines.append(f'{{"text": "{document} {text}"}}'.replace("\n", "\\n"))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def make_data(corpus: Path) -> Any:
    """A function that makes a prepared data module."""

    def make(**options: Any) -> MetaTokenDataModule:
        defaults = {
            "corpus": str(corpus),
            "validation_fraction": 0.3,
            "vocab_size": 320,
            "block_size": 40,
            "batch_size": 4,
        }
        data = MetaTokenDataModule(**{**defaults, **options})
        data.prepare_data()
        return data

    return make


@pytest.fixture
def make_model() -> Any:
    """A function that makes a tiny model."""

    def make(**options: Any) -> MetaTokenLM:
        return MetaTokenLM(**{"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 320, **options})

    return make
