"""Every file under conf/corpus is laid over the demo, and reads files of the shape that its data set has."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import yaml

from lightning_metatok.data import MetaTokenizer
from lightning_metatok.data.corpora import CorpusConfig, open_corpus
from tests.conf.test_conf import CONF, SMALL, curve, parse
from tests.system.helpers import documents, run, succeed

CORPORA = sorted((CONF / "corpus").glob("*.yaml"))
TEXTS = list(documents(64, sentences=12))
SPLITS = {"train": TEXTS[:48], "validation": TEXTS[48:56], "test": TEXTS[56:]}


def table(path: Path, **columns: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def write_c4(folder: Path) -> None:
    """Two files of 1,024, one of eight."""
    (folder / "en").mkdir(parents=True)
    files = {"train.00000-of-01024": TEXTS[:24], "train.00001-of-01024": TEXTS[24:48]}
    for name, texts in {**files, "validation.00000-of-00008": TEXTS[48:]}.items():
        rows = [{"text": text, "timestamp": "2019-04-25T12:57:54Z", "url": "https://example.org"} for text in texts]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "en" / f"c4-{name}.json.gz").write_bytes(gzip.compress(lines.encode()))


def write_fineweb(folder: Path) -> None:
    """One split, in files without its name."""
    for number in range(2):
        texts = TEXTS[number::2]
        others = {"id": ["<urn>"] * 32, "dump": ["CC-MAIN"] * 32, "score": [3.4] * 32, "int_score": [3] * 32}
        table(folder / "sample" / "10BT" / f"{number:03}_00000.parquet", text=texts, **others)


def write_pg19(folder: Path) -> None:
    for split, texts in SPLITS.items():
        columns = {"short_book_title": ["A Book"] * len(texts), "publication_date": [1850] * len(texts)}
        table(folder / "data" / f"{split}-00000-of-00001-29a571947c0b5ccc.parquet", **columns, text=texts)


def write_wikitext(folder: Path) -> None:
    for split, texts in SPLITS.items():
        rows = [row for text in texts for row in article(text).splitlines(keepends=True)]
        rows = ["", *("" if row == "\n" else row for row in rows)]
        table(folder / "wikitext-103-raw-v1" / f"{split}-00000-of-00001.parquet", text=rows)


def article(text: str) -> str:
    title, _, rest = text.partition("\n")
    return f" = {title} = \n\n {rest.strip()} \n\n = = Career = = \n\n {rest[:50].strip()} = 2 = \n"


SHAPES: dict[str, tuple[Callable[[Path], None], Callable[[str], str]]] = {
    "c4": (write_c4, str),
    "fineweb-edu": (write_fineweb, str),
    "pg19": (write_pg19, str),
    "wikitext-103": (write_wikitext, article),
}
"""File -> what writes its files, and what a text is there."""


def without_a_network(path: Path) -> tuple[str, list[str]]:
    """The folder of `hf download`, and the options behind it, as the comment says them."""
    comment = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    options = re.findall(r"--data\.\S+", comment.partition("Without a network here:")[2])
    found = re.search(r"--repo-type dataset .*?--local-dir (\S+)", comment)
    assert found is not None
    assert f"hf download {yaml.safe_load(path.read_text())['data']['corpus']} " in comment
    return found[1], options


def test_every_file_has_a_shape_here() -> None:
    assert {path.stem for path in CORPORA} == set(SHAPES)


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in CORPORA])
def test_a_corpus_that_was_downloaded_elsewhere_trains_two_steps(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse(CONF / "base.yaml", path)
    assert {**config["data"], **yaml.safe_load(path.read_text())["data"]} == config["data"]
    monkeypatch.chdir(tmp_path)
    folder, options = without_a_network(path)
    write, _ = SHAPES[path.stem]
    write(tmp_path / folder)
    small = [option for option in SMALL if not option.startswith("--data.corpus_subset")]
    share = ["--data.validation_fraction=0.2"] if path.stem == "fineweb-edu" else []
    configs = [f"--config={CONF / 'base.yaml'}", f"--config={path}"]
    out = succeed("fit", *configs, *small, *options, *share, "--run_dir=run", "--data.max_documents=null")
    assert [step for step, _ in curve(tmp_path / "run", "loss/train")] == [1, 2]
    assert ("2 of 1,024 files of c4-train are there, and are read" in out) == (path.stem == "c4")


@pytest.mark.parametrize("name", ["c4", "fineweb-edu"])
def test_a_large_corpus_trains_while_it_is_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = CONF / "corpus" / f"{name}.yaml"
    monkeypatch.chdir(tmp_path)
    folder, options = without_a_network(path)
    SHAPES[name][0](tmp_path / folder)
    said = re.search(r"while it is read.*?\n# +(--data.*)\n", path.read_text())
    assert said is not None
    assert "--data.tokenizer=gpt2" in said[1]
    MetaTokenizer.train(TEXTS, 400).save(tmp_path / "gpt2.json")
    streamed = said[1].replace("=gpt2", "=gpt2.json").split()
    configs = [f"--config={CONF / 'base.yaml'}", f"--config={path}"]
    succeed("fit", *configs, *SMALL, *options, *streamed, "--data.held_out_documents=16", "--run_dir=run")
    assert [step for step, _ in curve(tmp_path / "run", "loss/train")] == [1, 2]


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in CORPORA])
def test_a_corpus_of_the_hub_gives_each_document_once(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, as_written = SHAPES[path.stem]
    write(tmp_path / "files")
    options = yaml.safe_load(path.read_text())["data"]
    opened = datasets.load_dataset

    def from_here(name: str, subset: str | None, split: str, streaming: bool) -> Any:
        assert (name, subset) == (options["corpus"], options.get("corpus_subset"))
        every = sorted(str(file) for file in (tmp_path / "files").rglob("*.*") if file.is_file())
        files = every if path.stem == "fineweb-edu" else [file for file in every if split in Path(file).name]
        kind = "json" if path.stem == "c4" else "parquet"
        cache = str(tmp_path / "cache")
        return opened(kind, data_files=files, split="train", streaming=streaming, cache_dir=cache)

    monkeypatch.setattr(datasets, "load_dataset", from_here)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    share = {"validation_fraction": 0.2} if path.stem == "fineweb-edu" else {}
    corpus = open_corpus(CorpusConfig(**{**options, **share}))
    read = {split: list(corpus.documents(split)) for split in corpus.splits}
    assert set(read) == set(SPLITS)
    found, whole = [text for texts in read.values() for text in texts], [as_written(text) for text in TEXTS]
    if path.stem == "c4":  # so few to validate on that some are cut in two
        assert all(any(part in text for text in whole) for part in found)
        assert sum(map(len, found)) == sum(map(len, whole))
    else:
        assert sorted(text.strip() for text in found) == sorted(text.strip() for text in whole)
    if path.stem in ("pg19", "wikitext-103"):
        assert {split: len(texts) for split, texts in read.items()} == {k: len(texts) for k, texts in SPLITS.items()}


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("damage", ["cut", "bytes", "no field"])
def test_a_file_of_the_hub_that_is_half_there_is_one_line(
    damage: str, streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pg19(tmp_path)
    train = next(tmp_path.glob("data/train*"))
    if damage == "cut":
        train.write_bytes(train.read_bytes()[:-100])
    if damage == "bytes":
        content = train.read_bytes()
        train.write_bytes(content[:200] + b"\xff" * 2000 + content[2200:])
    opened = datasets.load_dataset

    def from_here(name: str, subset: str | None, split: str, streaming: bool) -> Any:
        files = [str(file) for file in tmp_path.glob(f"data/{split}*")]
        return opened("parquet", data_files=files, split="train", streaming=streaming, cache_dir=str(tmp_path / "c"))

    monkeypatch.setattr(datasets, "load_dataset", from_here)
    monkeypatch.setenv("LIGHTNING_METATOK_CACHE", str(tmp_path / "cache"))
    options = [f"--data.streaming={streaming}", "--data.corpus=lab/books", "--data.test_corpus=test"]
    options += ["--data.text_field=body"] if damage == "no field" else []
    outcome = run("prepare", f"--config={CONF / 'debug.yaml'}", *options)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
    assert "data.corpus='lab/books'" in outcome.err
    if damage != "no field":
        assert "a file of its split 'train' is damaged or half-downloaded (" in outcome.err
    else:
        assert "no field 'body' (data.text_field); found 'short_book_title', 'publication_date', 'text'" in outcome.err


def test_a_download_that_is_not_finished_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_METATOK_CACHE", str(tmp_path / "cache"))
    write_pg19(tmp_path / "pg19")
    kept = tmp_path / "pg19" / ".cache" / "huggingface" / "download" / "data"
    kept.mkdir(parents=True)
    (kept / "x1y2.abc.incomplete").write_bytes(b"PAR1")
    for given in ("pg19", "pg19/data"):
        outcome = run("prepare", f"--config={CONF / 'debug.yaml'}", f"--data.corpus={tmp_path / given}")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
        assert "its download is not finished (1 files .incomplete" in outcome.err
    (tmp_path / "other").mkdir()
    write_pg19(tmp_path / "pg19" / "other")
    assert open_corpus(CorpusConfig(str(tmp_path / "pg19" / "other" / "data"))).train is not None


@pytest.mark.parametrize("state", ["whole", "unfinished"])
def test_what_lies_in_the_cache_of_the_hub_is_named(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "datasets--lab--texts"
    snapshot = repository / "snapshots" / ("a" * 40)
    write_pg19(snapshot)
    for folder in ("refs", "blobs"):
        (repository / folder).mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    if state == "unfinished":
        (repository / "blobs" / "abc.incomplete").touch()
    outcome = run("prepare", f"--config={CONF / 'debug.yaml'}", "--data.corpus=lab/texts", "--data.corpus_subset=data")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
    if state == "whole":
        assert f"give --data.corpus={snapshot / 'data'}" in outcome.err
    else:
        assert f"its download is not finished (1 files .incomplete in {repository / 'blobs'})" in outcome.err


@pytest.mark.parametrize(("pattern", "expected"), [("(", "expected a regular expression"), ("^ = ", "")])
def test_what_starts_a_document_is_an_expression(pattern: str, expected: str, tmp_path: Path) -> None:
    write_wikitext(tmp_path)
    options = [f"--data.corpus={tmp_path}", f"--data.document_start={pattern}", f"--data.cache_dir={tmp_path / 'c'}"]
    outcome = run("prepare", f"--config={CONF / 'debug.yaml'}", *options)
    assert outcome.code == (2 if expected else 0), outcome
    assert expected in outcome.err
