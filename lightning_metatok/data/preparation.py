"""From a `DataConfig` to a tokenizer and token streams: the one call to make before training."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lightning_metatok.data.blocks import TokenStore
from lightning_metatok.data.cache import cache_folder, fingerprint, prepared
from lightning_metatok.data.corpora import Corpus, CorpusConfig, looks_local, open_corpus
from lightning_metatok.data.pieces import PIECE, pieces
from lightning_metatok.data.tokenizer import SMALLEST_VOCABULARY, MetaTokenizer
from lightning_metatok.data.tokenizer_training import LONGEST_WORD, Model
from lightning_metatok.data.writing import Progress, prepare_tokens
from lightning_metatok.errors import UserError, nearest
from lightning_metatok.signals import heed

TOKENIZER = "tokenizer.json"
LOST, KEPT = "data are prepared anew", "text that was tokenised is kept"
"""What a signal costs that comes while they are, or what it does not."""

TRAINING = "training the tokenizer"
Objective = Literal["next", "masked"]


@dataclass(frozen=True)
class DataConfig(CorpusConfig):
    """Which text, and how it becomes tokens."""

    tokenizer: str | None = None
    """none to train a byte-level one on the train split; else the path of a tokenizer.json, or the name of a
    repository on the Hugging Face hub"""
    tokenizer_model: Model = "bpe"
    """what is trained where none is given: bpe, or unigram, whose pieces have probabilities"""
    vocab_size: int = 4096
    """ids of the tokenizer to train, special tokens and all 256 bytes included; of a given one, what it has"""
    add_special_tokens: bool = False
    """give <|endoftext|>, too, a new id in a given tokenizer that lacks it; <|meta|> gets one anyway"""
    objective: Objective = "next"
    """what a model is scored on: each token where the one before it stands (next), or tokens that are hidden from a
    model that sees both sides (masked, with model.pattern=bidirectional); the tokenizer has <|mask|> then"""
    cache_dir: str | None = None
    """folder for prepared data (default: $LIGHTNING_METATOK_CACHE, else ~/.cache/lightning-metatok)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, value, choices in (
            ("objective", self.objective, get_args(Objective)),
            ("tokenizer_model", self.tokenizer_model, get_args(Model)),
        ):
            if value not in choices:
                expected = f"expected one of {', '.join(choices)}{nearest(value, choices)}"
                raise UserError(f"data.{key}={value!r}: {expected}")
        smallest = SMALLEST_VOCABULARY + self.masked
        if self.tokenizer is None and self.vocab_size < smallest:
            raise UserError(
                f"data.vocab_size={self.vocab_size}: expected at least {smallest}, "
                f"which is 256 bytes and the special tokens"
            )

    @property
    def masked(self) -> bool:
        """Whether tokens are hidden."""
        return self.objective == "masked"


def prepare(
    config: DataConfig, say: Callable[[str], None] = print, workers: int = 1
) -> tuple[MetaTokenizer, TokenStore]:
    """Return the tokenizer and the token streams that `config` describes, out of the cache if they are there.

    What people should know about the corpus goes to `say`, see `tell`. `workers`: processes that tokenise.

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
        store = prepare_tokens(corpus, tokenizer, cache, progress, workers)
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
    progress: Progress,
) -> MetaTokenizer:
    """Return the tokenizer that `config.tokenizer` names, or one trained on `corpus` and kept in `cache`."""
    if config.tokenizer is not None:
        return load_tokenizer(config.tokenizer, config.add_special_tokens, masked=config.masked)
    vocab_size = config.vocab_size - config.masked  # the last id is that of <|mask|>

    def build(folder: Path) -> None:
        progress(TRAINING, 0, None)
        # Whole documents, unless they are so long that their words would not fit into memory.
        text = (piece for document in corpus.documents("train") for piece in pieces(document, 2 * PIECE))
        MetaTokenizer.train(text, vocab_size, config.tokenizer_model).save(folder / TOKENIZER)

    inputs = {
        "kind": config.tokenizer_model,
        "corpus": corpus.fingerprint(),
        "vocab_size": vocab_size,
        "longest_piece": 4 * PIECE,
        "longest_word": LONGEST_WORD,
    }
    folder = prepared(cache, f"tokenizer-{fingerprint(inputs)}", build)
    trained = MetaTokenizer.from_json((folder / TOKENIZER).read_text(encoding="utf-8"))
    return trained.with_mask() if config.masked else trained


def load_tokenizer(name: str, add_special_tokens: bool, *, masked: bool = False) -> MetaTokenizer:
    """Return the tokenizer `name` of `DataConfig.tokenizer`; <|meta|> is added where it alone is missing.

    `masked`: so is <|mask|>.
    """
    load = MetaTokenizer.from_file if looks_like_file(name) else MetaTokenizer.from_hub
    tokenizer = load(name, add_special_tokens, add_meta=True)
    return tokenizer.with_mask() if masked else tokenizer


def looks_like_file(name: str) -> bool:
    """Return whether a tokenizer's `name` is meant as a path and not as the name of a repository."""
    return name.endswith(".json") or looks_local(name)


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Give what is told of progress: it heeds signals, and draws a bar with the time left if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda what, n, share: _heed(what)
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("preparing data: {task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(what: str, n: int, share: float | None) -> None:
            _heed(what)
            said = what + (f", {n / 1e6:.1f} M tokens" if n else "")
            bar.update(task, description=said, completed=share or 0, total=None if share is None else 1)

        yield show


def _heed(what: str) -> None:
    heed(LOST if what == TRAINING else KEPT)
