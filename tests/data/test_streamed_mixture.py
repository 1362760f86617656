"""A mixture that is tokenised as it is read: the batches of a naive reading, from any step on, and what is held out."""

import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_metatok.data import MetaTokenizer
from lightning_metatok.data.first_documents import Behind, First
from lightning_metatok.data.marks import Marks
from lightning_metatok.data.mixture import Mixture
from lightning_metatok.data.preparation import DataConfig
from lightning_metatok.data.sources import Files, HubSplit, Source
from lightning_metatok.data.streamed import StreamedBlocks
from lightning_metatok.data.streaming import prepare_streamed
from lightning_metatok.data.texts import Texts
from lightning_metatok.data.windows import StreamedText
from lightning_metatok.errors import UserError
from tests.data.streams import SEED, S, builder, naive, read

pytestmark = pytest.mark.usefixtures("small_batches")

WEIGHTS = (3.0, 1.0, 1.5)
HELD = (4, 0, 2)
"""Documents at the start of each source that do not train."""
BUFFER = 12


@pytest.fixture(scope="module")
def texts() -> list[list[str]]:
    """Documents of three sources, of very different lengths, some without text."""
    draw = random.Random(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "so"]
    return [
        ["\n" if number % 9 == 3 else f"{name}{number} " + " ".join(draw.choices(words, k=draw.choice((1, 9, 60))))
         for number in range(n)]
        for name, n in (("a", 60), ("b", 14), ("c", 30))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def sources(texts: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, ...]:
    """The same: in two files, in Python, and in what `datasets` streams."""
    folder = tmp_path_factory.mktemp("mixture")

    def write(path: Path, documents: list[str]) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
        return path

    files = write(folder / "a" / "0.jsonl", texts[0][:25]), write(folder / "a" / "1.jsonl", texts[0][25:])
    hub = write(folder / "c" / "train.jsonl", texts[2]).parent
    return Files(files, "text", "file"), Texts(texts[1]), HubSplit(str(hub), None, "train", "text", streaming=True)


@pytest.fixture(params=["first", "all"])
def mixture(request: pytest.FixtureRequest, sources: tuple[Source, ...]) -> Mixture:
    """All three behind what is held out."""
    parts = tuple(Behind(one, n, name) for one, n, name in zip(sources, HELD, "abc", strict=True))
    return Mixture(("a", "b", "c"), parts, WEIGHTS, request.param)


@pytest.fixture
def ids(mixture: Mixture, texts: list[list[str]], tokenizer: MetaTokenizer) -> list[list[int]]:
    """The tokens of each document of a pass, by the simplest way: what is furthest behind its share comes next."""
    kept = [[text for text in part if text.strip()][n:] for part, n in zip(texts, HELD, strict=True)]
    at, rounds, size = [0, 0, 0], [0, 0, 0], [0, 0, 0]
    drawn = []
    while True:
        part = min(range(3), key=lambda i: size[i] / WEIGHTS[i])
        if at[part] == len(kept[part]):
            at[part], rounds[part] = 0, rounds[part] + 1
            if mixture.ends == "first" or all(rounds):
                break
            continue
        drawn.append(kept[part][at[part]])
        size[part] += len(drawn[-1].encode())
        at[part] += 1
    if mixture.ends == "all":
        assert max(rounds) > 1, "a source is read again"
    return [[*tokenizer.encode(text), tokenizer.eos_id] for text in drawn]


@pytest.fixture
def make(mixture: Mixture, tokenizer: MetaTokenizer, tmp_path: Path) -> Iterator[Any]:
    """A function that makes blocks anew, as a new process does; the marks are kept."""
    made = []

    def blocks(source: Source = mixture, workers: int = 0) -> StreamedBlocks:
        text = StreamedText(source, tokenizer, Marks(tmp_path / "marks.jsonl", every=300), workers=workers)
        made.append(StreamedBlocks(text, S, BUFFER, SEED))
        return made[-1]

    yield blocks
    for one in made:
        one.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_are_those_of_a_naive_reading(make: Any, ids: list[list[int]], workers: int) -> None:
    wanted = naive(ids, BUFFER, epochs=2)
    assert read(make(workers=workers), range(len(wanted))) == wanted


def test_it_goes_on_from_any_step_and_over_the_border_of_an_epoch(make: Any, ids: list[list[int]]) -> None:
    wanted = naive(ids, BUFFER, epochs=3)
    n, draw = len(wanted) // 3, random.Random(1)
    for start in (7, n - 20, n - 1, n, 2 * n - 3, *draw.sample(range(2 * n), 4)):
        blocks = make(workers=draw.choice((0, 1, 2)))
        assert read(blocks, range(start, start + 30)) == wanted[start : start + 30]


def test_what_is_before_a_mark_is_not_tokenised(
    make: Any, ids: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = naive(ids, BUFFER, epochs=1)
    read(make(), range(len(wanted)))
    shown: list[str] = []
    encode = MetaTokenizer.encode_documents
    monkeypatch.setattr(
        MetaTokenizer, "encode_documents", lambda self, texts: shown.extend(texts) or encode(self, texts)
    )
    assert read(make(), range(len(wanted) - 5, len(wanted))) == wanted[-5:]
    assert 0 < len(shown) < len(ids)


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_a_source_that_is_another_is_noticed(
    changed: int, make: Any, mixture: Mixture, ids: list[list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever of them the next document comes from."""
    n = len(naive(ids, BUFFER, epochs=1))
    inside = [Texts([*source.documents()]) for source in mixture.sources]
    before = dataclasses.replace(mixture, sources=tuple(inside))
    read(make(before), range(n))
    inside[changed] = Texts([text + "!" for text in inside[changed].documents()])
    read(make(dataclasses.replace(mixture, sources=tuple(inside))), range(2 * BUFFER, 2 * BUFFER + 2))
    assert capsys.readouterr().err.count("is not where it was; all before it is read again") == 1


def test_ranks_share_the_samples_of_one(make: Any, tokenizer: MetaTokenizer) -> None:
    alone = builder(make(), tokenizer)
    ranks = [builder(make(workers=rank), tokenizer, batch_size=2) for rank in range(2)]
    for step in range(20):
        parts = [one.batch(step, rank, 2) for rank, one in enumerate(ranks)]
        rows = [torch.stack([part.tokens_BT[row] for part in parts]) for row in range(2)]
        assert torch.equal(torch.cat(rows), alone.batch(step).tokens_BT)


def given(folder: Path, tokenizer: MetaTokenizer, **options: Any) -> DataConfig:
    tokenizer.save(folder / "tokenizer.json")
    return DataConfig(tokenizer=str(folder / "tokenizer.json"), cache_dir=str(folder / "cache"), **options)


def write(folder: Path, name: str, n: int) -> str:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps({"text": f"{name}{i} sat on the mat."}) + "\n" for i in range(n)))
    return str(path)


def texts_of(stream: Any, tokenizer: MetaTokenizer) -> list[str]:
    """The names of the documents in a stream of tokens."""
    return [text.split()[0] for text in tokenizer.decode(stream.tolist()).split("<|endoftext|>") if text]


@pytest.mark.parametrize("test_fraction", [0, 0.5])
def test_the_first_documents_of_each_corpus_are_held_out(
    test_fraction: float, tokenizer: MetaTokenizer, tmp_path: Path
) -> None:
    a, b = write(tmp_path, "a", 90), write(tmp_path, "b", 90)
    config = given(tmp_path, tokenizer, corpus={a: 2, b: 1}, test_fraction=test_fraction)
    _, store, text = prepare_streamed(config, 20)
    train = texts_of(next(text.windows(10**6)).ids, tokenizer)
    held = {split: texts_of(store.stream(split), tokenizer) for split in store.splits}
    assert train[0] == "a20"
    assert "b20" in train
    assert len({*train}) == len(train)
    aside = [name for names in held.values() for name in names]
    assert not {*train} & {*aside}
    assert {*aside} == {f"a{i}" for i in range(20)} | {f"b{i}" for i in range(11)}, "2 : 1, to the end of a"
    assert bool(test_fraction) == ("test" in held)
    assert sum(name[0] == "a" for name in train) == pytest.approx(2 * sum(name[0] == "b" for name in train), abs=2)


def test_text_that_validates_may_be_given(tokenizer: MetaTokenizer, tmp_path: Path) -> None:
    a, b, c = (write(tmp_path, name, 30) for name in "abc")
    config = given(tmp_path, tokenizer, corpus={a: 1, b: 1}, validation_corpus=c, test_fraction=0, max_documents=7)
    _, store, text = prepare_streamed(config, 5)
    assert texts_of(store.stream("validation"), tokenizer) == [f"c{i}" for i in range(5)]
    train = texts_of(next(text.windows(10**6)).ids, tokenizer)
    assert train == ["a0", "b0", "a1", "b1", "a2", "b2", "a3"]


def test_marks_are_those_of_one_mixture(tokenizer: MetaTokenizer, tmp_path: Path) -> None:
    a, b = write(tmp_path, "a", 30), write(tmp_path, "b", 30)
    mixtures: list[dict[str, Any]] = [{a: 1, b: 1}, {a: 2, b: 1}, {b: 1, a: 1}, {a: 1}]
    asked = [{"corpus": mixture} for mixture in mixtures] + [{"corpus": mixtures[0], "mixture_ends": "all"}]
    paths = {prepare_streamed(given(tmp_path, tokenizer, **one), 5)[2].marks.path for one in asked}
    assert len(paths) == len(asked)


def test_mistakes_are_named(tokenizer: MetaTokenizer, tmp_path: Path) -> None:
    a, b = write(tmp_path, "a", 30), write(tmp_path, "b", 9)
    twice = given(tmp_path, tokenizer, corpus={a: 1, str(tmp_path / "*.jsonl"): 1})
    with pytest.raises(UserError, match=r"a\.jsonl is in .*\*\.jsonl and in .*a\.jsonl: with data\.shuffle_buffer"):
        prepare_streamed(twice, 5)
    short = given(tmp_path, tokenizer, corpus={a: 1, b: 1})
    with pytest.raises(UserError, match=r"b\.jsonl': no document with text behind its first 9, which are held out"):
        next(prepare_streamed(short, 9)[2].windows(50))


def test_first_and_behind_are_all(sources: tuple[Source, ...], texts: list[list[str]]) -> None:
    for source, part in zip(sources, texts, strict=True):
        together = [*First(source, 5).documents(), *Behind(source, 5, "x").documents()]
        assert together == [text for text in part if text.strip()]
