"""Text that is tokenised as it is read: the batches of a naive reading, every block once, from any step on."""

import dataclasses
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_metatok.data import MetaTokenizer, PackedBlocks, TokenStore
from lightning_metatok.data.first_documents import Behind
from lightning_metatok.data.marks import Mark, Marks
from lightning_metatok.data.preparation import DataConfig
from lightning_metatok.data.sources import Files, HubSplit, Source, documents_from
from lightning_metatok.data.streamed import StreamedBlocks
from lightning_metatok.data.streaming import prepare_streamed
from lightning_metatok.data.texts import Texts
from lightning_metatok.data.windows import StreamedText
from lightning_metatok.data.writing import prepare_tokens
from lightning_metatok.errors import UserError
from tests.data.streams import SEED, S, builder, equal, naive, read

pytestmark = pytest.mark.usefixtures("small_batches")

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "so", "it", "goes,", "then", "rain", "falls.", ""]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Documents of very different lengths, one of several pieces, some without text."""
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.choice((1, 3, 40, 90)))) for _ in range(70)]
    texts[20] = " ".join(draw.choices(WORDS, k=900))  # of several pieces
    texts[7] = texts[31] = " \n"
    return texts


@pytest.fixture(scope="module")
def files(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The same, in three files."""
    folder = tmp_path_factory.mktemp("texts")
    for number, part in enumerate((texts[:10], texts[10:55], texts[55:])):
        path = folder / f"{number}.jsonl"
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    return Files(tuple(sorted(folder.iterdir())), "text", "file")


@pytest.fixture(scope="module")
def ids(texts: list[str], tokenizer: MetaTokenizer) -> list[list[int]]:
    """The tokens of each document with text, its end included, by the simplest way."""
    return [[*tokenizer.encode(text), tokenizer.eos_id] for text in texts if text.strip()]


@pytest.fixture
def make(files: Files, tokenizer: MetaTokenizer, tmp_path: Path) -> Iterator[Any]:
    """A function that makes blocks anew, as a new process does; the marks are kept."""
    made = []

    def blocks(
        buffer: int = 24, marks: Path = tmp_path / "marks.jsonl", source: Any = files, **options: Any
    ) -> StreamedBlocks:
        text = StreamedText(source, tokenizer, Marks(marks, every=300), **options)
        made.append(StreamedBlocks(text, S, buffer, SEED))
        return made[-1]

    yield blocks
    for one in made:
        one.close()


@pytest.mark.parametrize(("buffer", "workers"), [(1, 0), (24, 0), (24, 2), (3, 1)])
def test_samples_are_those_of_a_naive_reading(make: Any, ids: list[list[int]], buffer: int, workers: int) -> None:
    wanted = naive(ids, buffer, epochs=2)
    blocks = make(buffer, workers=workers)
    assert read(blocks, range(len(wanted))) == wanted
    assert blocks.n_blocks == len(wanted) // 2


def test_an_epoch_holds_every_token_once(make: Any, ids: list[list[int]]) -> None:
    blocks = make()
    total = sum(map(len, ids))
    n = total // S
    every = Counter(itertools.islice(itertools.chain.from_iterable(ids), n * S))
    for epoch in range(3):
        drawn = Counter(blocks.tokens(np.arange(n) + epoch * n).flatten().tolist())
        assert drawn == every
    assert total - n * S < S, "what is left out is less than a block"


def test_a_buffer_of_all_blocks_is_what_is_prepared_ahead(
    make: Any, files: Files, tokenizer: MetaTokenizer, tmp_path: Path
) -> None:
    class Whole:
        splits = ("train",)
        documents = staticmethod(lambda split: (text for text in files.documents() if text.strip()))
        fingerprint = staticmethod(lambda: "whole")
        remarks = staticmethod(lambda n_bytes, digests: ([], []))

    store: TokenStore = prepare_tokens(Whole(), tokenizer, tmp_path)  # type: ignore[arg-type]
    packed = builder(PackedBlocks(store, "train", S), tokenizer)
    streamed = builder(make(10**6), tokenizer)
    n = len(packed.blocks) // 4 + 1
    for step in (0, 1, n - 1, n, 2 * n):  # on the border of epochs, too
        assert equal(packed.batch(step), streamed.batch(step))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_ranks_share_the_samples_of_one(make: Any, tokenizer: MetaTokenizer, workers: int) -> None:
    alone = builder(make(), tokenizer)
    ranks = [builder(make(workers=workers), tokenizer, batch_size=2) for _ in range(2)]
    for step in range(0, 40):
        whole = alone.batch(step)
        parts = [one.batch(step, rank, 2) for rank, one in enumerate(ranks)]
        rows = [torch.stack([part.tokens_BT[row] for part in parts]) for row in range(2)]
        assert torch.equal(torch.cat(rows), whole.tokens_BT)


def test_it_goes_on_anywhere_whatever_is_left_of_the_marks(make: Any, ids: list[list[int]], tmp_path: Path) -> None:
    wanted = naive(ids, 24, epochs=3)
    draw = random.Random(1)
    read(make(), range(len(wanted) // 3 + 30))
    marks = tmp_path / "marks.jsonl"
    lines = marks.read_text().splitlines(keepends=True)
    assert len(lines) > 8
    kept = ["".join(lines), "", "".join(lines[::2])[:-9], "[1, 2, 3] 4\n\0\n" + lines[0] + "".join(lines[::-1])]
    for number, start in enumerate(draw.sample(range(len(wanted) - 50), 12)):
        marks.write_text(kept[number % len(kept)])
        assert read(make(), range(start, start + 50)) == wanted[start : start + 50]


def test_what_is_before_a_mark_is_not_read(make: Any, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = read(make(), range(200))[-20:]
    shown: list[str] = []
    encode = MetaTokenizer.encode_documents
    monkeypatch.setattr(
        MetaTokenizer, "encode_documents", lambda self, texts: shown.extend(texts) or encode(self, texts)
    )
    assert read(make(), range(180, 200)) == wanted
    assert any(text.startswith(shown[0]) for text in list(files.documents())[10:]), "not from the first documents on"


def test_documents_are_counted(make: Any, files: Files, ids: list[list[int]]) -> None:
    """Some are skipped, some are too many, and those without text count nowhere."""
    behind = Behind(files, 5, "files")
    blocks = make(4, source=behind, most=9)
    wanted = naive(ids[5:14], 4, epochs=1)
    assert read(blocks, range(2 * len(wanted)))[: len(wanted)] == wanted
    assert blocks.n_blocks == len(wanted)
    assert read(make(4, source=behind, most=9), range(len(wanted))) == wanted, (
        "from the first mark, which is behind five"
    )


def test_a_place_that_is_another_is_noticed(
    make: Any, ids: list[list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = naive(ids, 24, epochs=1)
    read(make(), range(100))
    last = Marks(tmp_path / "marks.jsonl").before(90 * S)
    wrong = tmp_path / "wrong.jsonl"
    Marks(wrong, every=1).add(last._replace(place=[0, 1]))
    other = make(marks=wrong)
    assert read(other, range(90, 120)) == wanted[90:120]
    assert capsys.readouterr().err.count("is not where it was; all before it is read again") == 1
    assert read(make(marks=wrong), range(90, 120)) == wanted[90:120]
    assert capsys.readouterr().err == "", "the wrong mark is gone"


def test_text_that_ends_too_soon_is_named(make: Any, tmp_path: Path, files: Files) -> None:
    Marks(tmp_path / "short").add(Mark(3, 0, "end"))
    with pytest.raises(UserError, match="has 3 tokens, less than one block of 16"):
        make(marks=tmp_path / "short").tokens(np.array([0]))
    Marks(tmp_path / "long").add(Mark(10**9, 0, "end"))
    with pytest.raises(UserError, match=r"has changed: remove .*long"):
        make(10**5, marks=tmp_path / "long").tokens(np.array([10**6]))


def test_the_first_documents_are_held_out(files: Files, tokenizer: MetaTokenizer, tmp_path: Path, ids: Any) -> None:
    tokenizer.save(tmp_path / "tokenizer.json")
    given = {"tokenizer": str(tmp_path / "tokenizer.json"), "cache_dir": str(tmp_path / "cache")}
    config = DataConfig(corpus=[str(path) for path in files.paths], test_fraction=0, **given)
    _, store, text = prepare_streamed(config, 12)
    assert store.splits == ("validation",)
    assert store.stream("validation").tolist() == [*itertools.chain.from_iterable(ids[:12])]
    window = next(text.windows(10**6))
    assert window.ids.tolist() == [*itertools.chain.from_iterable(ids[12:])]
    own = DataConfig(corpus=str(files.paths[1]), validation_corpus=str(files.paths[0]), test_fraction=0, **given)
    _, store, text = prepare_streamed(own, 4)
    assert store.stream("validation").tolist() == [*itertools.chain.from_iterable(ids[:4])]
    assert next(text.windows(50)).ids.tolist() == [*itertools.chain.from_iterable(ids[9:])][:50]
    nothing = StreamedBlocks(prepare_streamed(config, 10**4)[2], S, 4, SEED)
    with pytest.raises(UserError, match="no document with text behind its first 10,000, which are held out"):
        nothing.tokens(np.array([0]))


@pytest.mark.parametrize("start", [None, "^the"])
@pytest.mark.parametrize("kind", ["files", "downloaded", "streamed", "python"])
def test_every_source_is_read_from_any_place(kind: str, start: str | None, files: Files) -> None:
    folder = str(files.paths[0].parent)
    source: Source = {
        "files": dataclasses.replace(files, document_start=start),
        "downloaded": HubSplit(folder, None, "train", "text", False, start),
        "streamed": HubSplit(folder, None, "train", "text", True, start),
        "python": Texts([*files.documents()]),
    }[kind]
    texts = list(source.documents())
    found = list(documents_from(source, None))
    assert [text for _, text in found] == texts
    assert len(found) > 10
    for number in (0, 11, len(found) - 1):
        again = list(documents_from(source, json.loads(json.dumps(found[number][0]))))
        assert [text for _, text in again] == texts[number:]
        for more in range(1, len(again), 25):  # places of a reading that began at a place
            third = documents_from(source, json.loads(json.dumps(again[more][0])))
            assert [text for _, text in third] == texts[number + more :]
