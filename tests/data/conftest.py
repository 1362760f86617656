"""A small corpus, prepared once: 60 documents of different lengths, in one JSON Lines file."""

import json
from pathlib import Path

import pytest

from lightning_metatok.data import pieces, tokenising
from lightning_metatok.data.corpora import Corpus, CorpusConfig, open_corpus
from lightning_metatok.data.tokenizer import MetaTokenizer

DOCUMENTS = [f"Document {i}: " + "the cat sat on the mat, and so on. " * (i % 7 + 1) for i in range(60)]


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus on disk."""
    path = tmp_path_factory.mktemp("corpus") / "documents.jsonl"
    path.write_text("".join(json.dumps({"text": document}) + "\n" for document in DOCUMENTS))
    return path


@pytest.fixture(scope="session")
def corpus(corpus_file: Path) -> Corpus:
    """The corpus, a quarter of it for validation."""
    return open_corpus(CorpusConfig(corpus=str(corpus_file), validation_fraction=0.25))


@pytest.fixture(scope="session")
def tokenizer(corpus: Corpus) -> MetaTokenizer:
    """A tokenizer trained on the corpus."""
    return MetaTokenizer.train(corpus.documents("train"), 270)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many batches in a little text."""
    monkeypatch.setattr(tokenising, "BATCH", 700)
    monkeypatch.setattr(tokenising, "SMALL_BATCH", 500)
    monkeypatch.setattr(pieces, "PIECE", 400)
