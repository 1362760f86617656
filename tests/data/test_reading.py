"""Every spelling of a corpus is read as the same text, in bounded memory: marks, suffixes, packing, columns, pieces."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, pre_tokenizers

from lightning_metatok.data import local_files, parquet_documents, pieces
from lightning_metatok.data.corpora import Corpus, CorpusConfig, open_corpus
from lightning_metatok.data.text_documents import text_documents
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError

TEXTS = [f"document {i} über {'the river ' * (i % 5)}" for i in range(30)]
LINES = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()


def zstd(content: bytes) -> bytes:
    return bytes(pyarrow.compress(content, codec="zstd", asbytes=True))


def opened(path: object, **options: object) -> Corpus:
    return open_corpus(CorpusConfig(corpus=path, **options))  # type: ignore[arg-type]


def read(path: object, **options: object) -> list[str]:
    return list(opened(path, **options).train.documents())


# -- text


@given(st.text("ab\n\r \u2028\x0bü\ufeff", max_size=60), st.sampled_from(["file", "line", "paragraph"]))
@settings(max_examples=150, deadline=None)
def test_documents_are_those_of_datasets(tmp_path_factory: pytest.TempPathFactory, text: str, kind: str) -> None:
    """`datasets` leaves a byte order mark in the text; its builder is run in place, without its caches."""
    from datasets.packaged_modules.text.text import Text, TextConfig

    path = tmp_path_factory.getbasetemp() / "same.txt"
    path.write_bytes(text.encode())
    builder = object.__new__(Text)
    builder.config = TextConfig(name="text", sample_by={"file": "document"}.get(kind, kind))
    tables = [table for _, table in builder._generate_tables([], [[str(path)]])]
    expected = [row for table in tables for row in table["text"].to_pylist()]
    if text.startswith("\ufeff"):
        return
    found = [document for document in text_documents(path, kind) if document or kind != "paragraph"]  # type: ignore[arg-type]
    assert found == expected


@pytest.mark.parametrize("kind", ["file", "line", "paragraph"])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst", "a.md", "a.TXT", "a.Txt.GZ"])
def test_a_byte_order_mark_is_no_text(name: str, kind: str, tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfone\r\n\r\ntwo"
    packed = gzip.compress(content) if "gz" in name.lower() else zstd(content) if "zst" in name else content
    (tmp_path / name).write_bytes(packed)
    expected = {"file": ["one\n\ntwo"], "line": ["one", "", "two"], "paragraph": ["one", "two"]}[kind]
    assert read(str(tmp_path / name), text_documents=kind) == expected


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.JSONL", "a.ndjson", "a.json", "a.Json.gz", "a.jsonl.zst", "a.ndjson.ZST"]
)
def test_json_lines_are_read_under_every_name_and_with_marks(name: str, tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + LINES + b"\xef\xbb\xbf" + LINES  # two files with marks, joined
    packed = gzip.compress(content) if "gz" in name.lower() else zstd(content) if "zst" in name.lower() else content
    (tmp_path / name).write_bytes(packed)
    assert read(str(tmp_path / name)) == TEXTS * 2


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("cut.jsonl.zst", zstd(LINES * 50)[:-20], "cannot be read (Truncated compressed stream)"),
        ("none.txt.zst", b"plain", "; is it packed by zstd at all?"),
        ("more.txt.zst", zstd(LINES) + b"more", "cannot be read (ZSTD"),
        ("latin.txt.zst", zstd(b"na\xefve"), "line 1: byte 0xef at offset 2 is not UTF-8"),
        ("late.txt", b"one\ntwo\n" * 99 + b"\xff", "line 199: byte 0xff at offset 792 is not UTF-8"),
    ],
)
def test_packed_text_that_is_damaged_is_named(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as raised:
        read(str(tmp_path / name))
    assert str(raised.value).startswith(str(tmp_path / name))
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_zstd_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_files, "NO_BOMB", 100_000)
    (tmp_path / "x.txt.zst").write_bytes(zstd(bytes(1_000_000)))
    with pytest.raises(UserError, match=r"unpacks to more than 100 times its \d+ bytes"):
        read(str(tmp_path / "x.txt.zst"))


# -- folders and lists


def test_hidden_files_are_left_out_and_other_suffixes_are_named_in_one_line(tmp_path: Path) -> None:
    for name in (
        "a.txt", "b.md", ".hidden.txt", "._a.txt", ".ipynb_checkpoints/a-checkpoint.txt", ".git/x.txt", "sub/c.txt",
        "sub/.d.txt", "x.csv", "y.csv", "z.pdf", "Makefile",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for given_ in (tmp_path, tmp_path / "**"):
        corpus = opened(str(given_))
        assert list(corpus.train.documents()) == ["a.txt", "b.md", "sub/c.txt"]
        (note,) = corpus.notes
        assert "not read, for their suffix: 2 .csv, 1 " in note
        assert all(kind in note for kind in (".pdf", "Makefile", "read are .txt, .md"))
        assert "checkpoint" not in note
    assert opened(str(tmp_path / "*.txt")).notes == ()
    assert read(str(tmp_path / ".ipynb_checkpoints")) == [".ipynb_checkpoints/a-checkpoint.txt"], "when named itself"


def test_a_list_of_files_is_read_in_its_order_and_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name in ("a.txt", "b.txt", "more/c.txt"):
        (tmp_path / name).write_text(name)
    given_ = [str(tmp_path / name) for name in ("b.txt", "more", "*.txt", "a.txt")]
    assert read(given_) == ["b.txt", "more/c.txt", "a.txt"]
    with pytest.raises(UserError, match=r"data\.corpus: no such files: '.*x\.txt', '.*y\.txt'$"):
        read([*given_, str(tmp_path / "x.txt"), str(tmp_path / "y.txt")])
    with pytest.raises(UserError, match=r"data\.corpus='.*/c\.txt': no such file"):
        read([*given_, str(tmp_path / "c.txt")])
    with pytest.raises(UserError, match=r"data\.corpus=\[\]: expected a path, or a list of paths"):
        read([])


# -- Parquet


def test_shards_may_differ_in_other_columns(tmp_path: Path) -> None:
    columns: list[dict[str, object]] = [
        {"url": ["u"] * 30}, {}, {"url": [1.5] * 30, "score": [[1]] * 30}, {"meta": [{"a": {"b": None}}] * 30},
    ]  # fmt: skip
    for i, more in enumerate(columns):
        table = pyarrow.table({**more, "text": [f"{i} {text}" for text in TEXTS]})
        pyarrow.parquet.write_table(table, tmp_path / f"{i}.parquet")
    assert read(str(tmp_path)) == [f"{i} {text}" for i in range(4) for text in TEXTS]


@pytest.mark.parametrize("small_group", [1 << 26, 0], ids=["whole-groups", "few-rows"])
@pytest.mark.parametrize(
    "column",
    [
        pyarrow.array(TEXTS),
        pyarrow.array(TEXTS, pyarrow.large_string()),
        pyarrow.array(TEXTS, pyarrow.string_view()),
        pyarrow.array(TEXTS).dictionary_encode(),
    ],
    ids=["string", "large", "view", "dictionary"],
)
def test_every_kind_of_text_column_is_read(
    column: pyarrow.Array, small_group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_documents, "SMALL_GROUP", small_group)
    monkeypatch.setattr(parquet_documents, "ROWS", 4)
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "x.parquet", row_group_size=11)
    assert read(str(tmp_path / "x.parquet")) == TEXTS


ONE = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1024, pyarrow.int32()), ["a" * (1 << 20)])
BOMBS = {
    "dictionary": (ONE, {}),
    "one value": (pyarrow.array(["a" * (1 << 27)]), {"use_dictionary": False}),
    "many rows": (pyarrow.array(["a" * 1000] * (1 << 17)), {"use_dictionary": False}),
}
READ = """
import resource, sys
from pathlib import Path
from lightning_metatok.data.parquet_documents import parquet_documents
from lightning_metatok.errors import UserError
import pyarrow.parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    for _ in parquet_documents(Path(sys.argv[1]), "text"): pass
except UserError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", BOMBS)
def test_a_small_table_that_unpacks_to_a_gigabyte_is_refused_in_bounded_memory(name: str, tmp_path: Path) -> None:
    column, options = BOMBS[name]
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), path, compression="zstd", **options)
    command = [sys.executable, "-c", READ, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    line, grown = done.stdout.splitlines()
    assert line == f"{path}: unpacks to more than 100 times its {path.stat().st_size} bytes; expected text"
    assert int(grown) < 150, "MB; 10 to 20 where this was written"


# -- pieces


def llama() -> Tokenizer:
    """The splitting of Llama 3 and GPT-4."""
    tokenizer = Tokenizer.from_str(MetaTokenizer.train(TEXTS, 300).to_json())
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


TOKENIZERS = {"own": MetaTokenizer.train(TEXTS, 300), "llama": MetaTokenizer(llama())}


WORDS = [
    "river", "über", "42", ".", "!\n", "\n", "\n\n", " ", "  ", "\t", "'s", "\r\n", "漢字", "the stone", " a", "x\ny",
    "_", "\u00a0",
]  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
@given(st.lists(st.sampled_from(WORDS), max_size=40), st.integers(16, 40))
@settings(max_examples=100, deadline=None)
def test_pieces_have_the_ids_of_the_whole(name: str, words: list[str], length: int) -> None:
    """A blank between two words follows every few characters, as it does in text."""
    tokenizer = TOKENIZERS[name]
    text = "".join(f"{word}a b c" for word in words)
    parts = list(pieces.pieces(text, length))
    assert "".join(parts) == text
    assert all(len(part) <= 2 * length for part in parts)
    assert [id for part in parts for id in tokenizer.encode(part)] == tokenizer.encode(text)


def test_pieces_of_real_text_have_the_ids_of_the_whole(shared_data: Path) -> None:
    text = (shared_data / "tinyshakespeare.txt").read_text()[:150_000]
    for tokenizer in (MetaTokenizer.train([text], 500), TOKENIZERS["llama"]):
        whole = tokenizer.encode(text)
        for length in (50, 1000, pieces.PIECE):
            assert [id for part in pieces.pieces(text, length) for id in tokenizer.encode(part)] == whole


MEASURE = """
import resource, sys, tempfile
from lightning_metatok.data.preparation import DataConfig, prepare
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
prepare(DataConfig(sys.argv[1], vocab_size=300, cache_dir=sys.argv[2]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.slow
def test_a_document_takes_a_few_times_its_size(tmp_path: Path) -> None:
    text = "".join(f"the river {i} carries stone {i * i}\n" for i in range(150_000))
    (tmp_path / "big.txt").write_text(text)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "big.txt"), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    grown = int(done.stdout.splitlines()[-1])
    assert grown < 220, f"{grown} MB for {len(text) >> 20}"
