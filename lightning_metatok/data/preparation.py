"""From a `DataConfig` to a tokenizer and token streams: the one call to make before training."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lightning_metatok.data.blocks import PIECE, TokenStore, pieces, prepare_tokens
from lightning_metatok.data.cache import cache_folder, fingerprint, prepared
from lightning_metatok.data.corpora import Corpus, CorpusConfig, looks_local, open_corpus
from lightning_metatok.data.tokenizer import LONGEST_WORD, SMALLEST_VOCABULARY, MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.signals import heed

TOKENIZER = "tokenizer.json"
LOST = "data are prepared anew"
"""What a signal costs that comes while they are."""


@dataclass(frozen=True)
class DataConfig(CorpusConfig):
    """Which text, and how it becomes tokens."""

    tokenizer: str | None = None
    """none to train a byte-level BPE on the train split; else the path of a tokenizer.json, or the name of a
    repository on the Hugging Face hub"""
    vocab_size: int = 4096
    """ids of the tokenizer to train, special tokens and all 256 bytes included; of a given one, what it has"""
    add_special_tokens: bool = False
    """give <|endoftext|>, too, a new id in a given tokenizer that lacks it; <|meta|> gets one anyway"""
    cache_dir: str | None = None
    """folder for prepared data (default: $LIGHTNING_METATOK_CACHE, else ~/.cache/lightning-metatok)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer is None and self.vocab_size < SMALLEST_VOCABULARY:
            raise UserError(
                f"data.vocab_size={self.vocab_size}: expected at least {SMALLEST_VOCABULARY}, "
                f"which is 256 bytes and the special tokens"
            )


def prepare(config: DataConfig, say: Callable[[str], None] = print) -> tuple[MetaTokenizer, TokenStore]:
    """Return the tokenizer and the token streams that `config` describes, out of the cache if they are there.

    What people should know about the corpus goes to `say`, see `tell`.

    People at a terminal see a progress bar while the first preparation runs.

    Raises:
        UserError: anything wrong with the corpus, the tokenizer, or the cache folder.
    """
    # Unset, the tokenizers library turns itself off, with a warning, in each process
    # that is forked afterwards.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    cache = cache_folder(config.cache_dir)
    corpus = open_corpus(config)
    with progress_bar() as progress:
        tokenizer = get_tokenizer(config, corpus, cache, progress)
        store = prepare_tokens(corpus, tokenizer, cache, progress)
    tell(corpus, store, say)
    return tokenizer, store


def tell(corpus: Corpus, store: TokenStore, say: Callable[[str], None]) -> None:
    """Give `say` what people should know about the corpus, a line at a time; some begin with "warning: "."""
    for line in (*corpus.notes, *store.notes, *(f"warning: {line}" for line in store.warnings)):
        say(line)


def get_tokenizer(
    config: DataConfig,
    corpus: Corpus,
    cache: Path,
    progress: Callable[[str, int], None],
) -> MetaTokenizer:
    """Return the tokenizer that `config.tokenizer` names, or one trained on `corpus` and kept in `cache`."""
    if config.tokenizer is not None:
        return load_tokenizer(config.tokenizer, config.add_special_tokens)

    def build(folder: Path) -> None:
        progress("training the tokenizer", 0)
        # Whole documents, unless they are so long that their words would not fit into memory.
        text = (piece for document in corpus.documents("train") for piece in pieces(document, 2 * PIECE))
        MetaTokenizer.train(text, config.vocab_size).save(folder / TOKENIZER)

    inputs = {
        "kind": "bpe",
        "corpus": corpus.fingerprint(),
        "vocab_size": config.vocab_size,
        "longest_piece": 4 * PIECE,
        "longest_word": LONGEST_WORD,
    }
    folder = prepared(cache, f"tokenizer-{fingerprint(inputs)}", build)
    return MetaTokenizer.from_json((folder / TOKENIZER).read_text(encoding="utf-8"))


def load_tokenizer(name: str, add_special_tokens: bool) -> MetaTokenizer:
    """Return the tokenizer `name` of `DataConfig.tokenizer`; <|meta|> is added where it alone is missing."""
    load = MetaTokenizer.from_file if looks_like_file(name) else MetaTokenizer.from_hub
    return load(name, add_special_tokens, add_meta=True)


def looks_like_file(name: str) -> bool:
    """Return whether a tokenizer's `name` is meant as a path and not as the name of a repository."""
    return name.endswith(".json") or looks_local(name)


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[str, int], None]]:
    """Give a function (what, tokens so far) that heeds signals, and shows progress where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda what, n: heed(LOST)
        return
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("preparing data") as status:

        def show(what: str, n: int) -> None:
            heed(LOST)
            status.update(f"preparing data: {what}" + (f", {n / 1e6:.1f} M tokens" if n else ""))

        yield show
