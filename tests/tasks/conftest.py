"""A small corpus of real words, prepared once: its tokenizer renders text, and it is the haystack of needles."""

import json
import random

import pytest

from lightning_metatok.data.blocks import TokenStore
from lightning_metatok.data.preparation import DataConfig, prepare
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.tasks.words import CATEGORIES

N_DOCUMENTS = 200


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[MetaTokenizer, TokenStore]:
    """The tokenizer, of 600 ids, and the token streams of documents about randomly chosen words."""
    folder = tmp_path_factory.mktemp("haystack")
    generator = random.Random(0)
    words = [word for items in CATEGORIES.values() for word in items]

    def document() -> str:
        sentences = (
            f"What stands in {name}? There is the {a}, and then {k} of the {b}.\n"
            for name, a, k, b in (
                (
                    generator.choice(list(CATEGORIES)),
                    generator.choice(words),
                    generator.randrange(100),
                    generator.choice(words),
                )
                for _ in range(20)
            )
        )
        return "".join(sentences)

    lines = [json.dumps({"text": document()}) for _ in range(N_DOCUMENTS)]
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n")
    return prepare(
        DataConfig(
            corpus=str(folder / "documents.jsonl"), validation_fraction=0.25, vocab_size=600, cache_dir=str(folder)
        )
    )


@pytest.fixture(scope="session")
def tokenizer(prepared: tuple[MetaTokenizer, TokenStore]) -> MetaTokenizer:
    """What renders text."""
    return prepared[0]


@pytest.fixture(scope="session")
def haystack(prepared: tuple[MetaTokenizer, TokenStore]) -> TokenStore:
    """What needles are hidden in."""
    return prepared[1]
