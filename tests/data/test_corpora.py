"""Documents come whole, split without leaks, and whatever is wrong with a file is named by file and line."""

import gzip
import json
from pathlib import Path

import pytest

from lightning_metatok.data.corpora import Corpus, CorpusConfig, open_corpus, stdlib_names
from lightning_metatok.errors import UserError


def corpus(path: object, **options: object) -> Corpus:
    return open_corpus(CorpusConfig(corpus=str(path), **options))  # type: ignore[arg-type]


def read(path: object, **options: object) -> tuple[list[str], list[str]]:
    """Two splits; `test_splits` has three."""
    opened = corpus(path, **{"test_fraction": 0, **options})
    return list(opened.documents("train")), list(opened.documents("validation"))


def write_jsonl(path: Path, documents: list[str], field: str = "text") -> Path:
    text = "".join(json.dumps({"id": i, field: document}) + "\n" for i, document in enumerate(documents))
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


DOCUMENTS = [f"document {i}\nwith ümläuts <|meta|>" for i in range(200)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json"])
def test_json_documents_are_split_without_loss_or_overlap(tmp_path: Path, name: str) -> None:
    train, validation = read(write_jsonl(tmp_path / name, DOCUMENTS), validation_fraction=0.2)
    assert sorted(train + validation) == sorted(DOCUMENTS)
    assert 20 < len(validation) < 60  # 40 expected; 5 standard deviations are 28


def test_adding_a_document_moves_no_other(tmp_path: Path) -> None:
    _, before = read(write_jsonl(tmp_path / "a.jsonl", DOCUMENTS[:150]), validation_fraction=0.2)
    _, after = read(write_jsonl(tmp_path / "b.jsonl", DOCUMENTS), validation_fraction=0.2)
    assert after[: len(before)] == before


def test_equal_documents_stay_on_one_side(tmp_path: Path) -> None:
    train, validation = read(write_jsonl(tmp_path / "a.jsonl", DOCUMENTS + DOCUMENTS), validation_fraction=0.3)
    assert not set(train) & set(validation)


def test_a_list_of_objects_and_parquet_are_read_too(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "a.json").write_text(json.dumps([{"body": document} for document in DOCUMENTS]))
    pyarrow.parquet.write_table(pyarrow.table({"body": DOCUMENTS}), tmp_path / "b.parquet")
    for name in ("a.json", "b.parquet"):
        train, validation = read(tmp_path / name, text_field="body")
        assert sorted(train + validation) == sorted(DOCUMENTS)


def test_a_separate_validation_corpus_leaves_the_corpus_whole(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("held out")
    path = write_jsonl(tmp_path / "a.jsonl", DOCUMENTS)
    assert read(path, validation_corpus=str(tmp_path / "v.txt")) == (DOCUMENTS, ["held out"])


def test_a_single_text_is_cut_at_a_line_near_its_end(tmp_path: Path) -> None:
    text = "".join(f"line {i}\n" for i in range(1000))
    (tmp_path / "a.txt").write_text(text)
    (train,), (validation,) = read(tmp_path / "a.txt", validation_fraction=0.1)
    assert train + validation == text
    assert train.endswith("\n")
    assert len(validation) == pytest.approx(0.1 * len(text), abs=10)  # within one line


def test_text_documents_says_what_a_document_of_a_text_file_is(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree")
    (tmp_path / "v.txt").write_text("v")
    options = {"validation_corpus": str(tmp_path / "v.txt")}
    assert read(tmp_path / "a.txt", **options)[0] == ["one\ntwo\n\nthree"]
    assert read(tmp_path / "a.txt", text_documents="paragraph", **options)[0] == ["one\ntwo", "three"]
    assert read(tmp_path / "a.txt", text_documents="line", **options)[0] == ["one", "two", "three"]


def test_folders_and_globs_stand_for_their_files(tmp_path: Path) -> None:
    (tmp_path / "sub [1]").mkdir()
    for name in ("b.txt", "a.txt", "sub [1]/c.txt", "d.md", "ignored.doc"):
        (tmp_path / name).write_text(name)
    (tmp_path / "v.jsonl").write_text('{"text": "v"}\n')
    options = {"validation_corpus": str(tmp_path / "v.jsonl")}
    assert read(tmp_path / "*.txt", **options)[0] == ["a.txt", "b.txt"]
    assert sorted(read(tmp_path, **options)[0]) == ["a.txt", "b.txt", "d.md", "sub [1]/c.txt"]


def test_max_documents_limits_each_split(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", DOCUMENTS)
    whole, limited = read(path, validation_fraction=0.5), read(path, validation_fraction=0.5, max_documents=3)
    assert limited == (whole[0][:3], whole[1][:3])


def test_the_standard_library_is_split_by_file_and_holds_no_tests() -> None:
    names = stdlib_names()
    assert "dataclasses.py" in names
    assert not [name for name in names if "/test" in name or "site-packages" in name]
    opened = corpus("python-stdlib", max_documents=5)
    assert sorted(opened.train.names + opened.validation.names) == names  # type: ignore[union-attr]
    assert all("\n" in document for document in opened.documents("validation"))


def test_real_corpora_are_read(shared_data: Path) -> None:
    train, validation = read(
        shared_data / "peps-train.jsonl.gz", validation_corpus=str(shared_data / "peps-validation.jsonl.gz")
    )
    assert train[0].startswith("PEP: 1\n")
    assert len(train) > 500
    assert len(validation) > 10
    (train_text,), (validation_text,) = read(shared_data / "tinyshakespeare.txt")
    assert len(train_text) + len(validation_text) == (shared_data / "tinyshakespeare.txt").stat().st_size


def test_the_fingerprint_follows_the_contents_and_not_the_place(tmp_path: Path) -> None:
    a = corpus(write_jsonl(tmp_path / "a.jsonl", DOCUMENTS)).fingerprint()
    b = corpus(write_jsonl(tmp_path / "b.jsonl", DOCUMENTS)).fingerprint()
    c = corpus(write_jsonl(tmp_path / "a.jsonl", DOCUMENTS[:-1])).fingerprint()
    limited = corpus(tmp_path / "b.jsonl", max_documents=9).fingerprint()
    assert a == b
    assert len({a, c, limited}) == 3


# -- the user's mistakes, one line each


def broken(tmp_path: Path, name: str, content: bytes) -> str:
    (tmp_path / name).write_bytes(content)
    return str(tmp_path / name)


def message_of(path: object, **options: object) -> str:
    with pytest.raises(UserError) as raised:
        read(path, **options)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_a_missing_file_suggests_the_nearest_one(tmp_path: Path) -> None:
    broken(tmp_path, "train.jsonl", b"")
    message = message_of(tmp_path / "tran.jsonl")
    assert message.startswith("data.corpus=")
    assert message.endswith("no such file; did you mean 'train.jsonl'?")
    write_jsonl(tmp_path / "train.jsonl", DOCUMENTS)
    option = {"validation_corpus": str(tmp_path / "nowhere.jsonl")}
    assert message_of(tmp_path / "train.jsonl", **option).startswith("data.validation_corpus=")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b""),
        ("a.txt", b" \n\n"),
        ("a.jsonl", b""),
        ("a.jsonl", b'{"text": ""}\n'),
        ("a.jsonl", b"\n\n"),
    ],
)
def test_a_corpus_without_text_says_so(tmp_path: Path, name: str, content: bytes) -> None:
    path = broken(tmp_path, name, content)
    assert message_of(path) == f"data.corpus={path!r}: no document with text in it"


def test_a_folder_without_corpus_files_names_the_suffixes(tmp_path: Path) -> None:
    broken(tmp_path, "a.doc", b"text")
    assert "expected a folder with files that end in .txt" in message_of(tmp_path)
    assert "expected a file that ends in .txt" in message_of(tmp_path / "a.doc")


def test_a_missing_field_names_file_line_and_the_fields_found(tmp_path: Path) -> None:
    path = broken(tmp_path, "a.jsonl", b'{"text": "a"}\n\n{"txt": "b", "n": 1}\n')
    expected = f"{path}, line 3: no field 'text' (data.text_field); found 'txt', 'n'; did you mean 'txt'?"
    assert message_of(path) == expected


def test_a_field_that_holds_no_text_names_file_and_line(tmp_path: Path) -> None:
    path = broken(tmp_path, "a.jsonl", b'{"text": "a"}\n{"text": null}\n')
    assert message_of(path) == f"{path}, line 2: field 'text' holds NoneType, expected text"
    path = broken(tmp_path, "b.jsonl", b'{"text": "a"}\n{"text": 5}\n')
    assert message_of(path) == f"{path}, line 2: field 'text' holds int, expected text"


def test_invalid_json_names_file_and_line(tmp_path: Path) -> None:
    path = broken(tmp_path, "a.jsonl", b'{"text": "a"}\n{"text": \n{"text": "b"}\n')
    assert message_of(path).startswith(f"{path}, line 2: not JSON (Expecting value")
    path = broken(tmp_path, "b.json", b'[{"text": "a"},\n{"text" "b"}]')
    assert message_of(path).startswith(f"{path}, line 2: not JSON")


@pytest.mark.parametrize("compress", [False, True])
def test_broken_encoding_names_file_line_and_byte(tmp_path: Path, compress: bool) -> None:
    content = b'{"text": "a"}\n{"text": "b\xff"}\n'
    name, stored = ("a.jsonl.gz", gzip.compress(content)) if compress else ("a.jsonl", content)
    path = broken(tmp_path, name, stored)
    assert message_of(path) == f"{path}, line 2: byte 0xff at offset 25 is not UTF-8; expected text in UTF-8"
    if not compress:
        path = broken(tmp_path, "a.txt", b"one\ntwo\xe9\n")
        assert message_of(path) == f"{path}, line 2: byte 0xe9 at offset 7 is not UTF-8; expected text in UTF-8"


def test_a_gz_file_that_is_none_or_breaks_off_says_so(tmp_path: Path) -> None:
    path = broken(tmp_path, "a.jsonl.gz", b'{"text": "plain"}\n')
    assert message_of(path).startswith(f"{path}: cannot be read (Not a gzipped file")
    whole = gzip.compress(b"".join(b'{"text": "%d"}\n' % i for i in range(5000)))
    path = broken(tmp_path, "b.jsonl.gz", whole[: len(whole) // 2])
    assert message_of(path).startswith(f"{path}: cannot be read (Compressed file ended")


def test_a_parquet_file_that_is_none_or_lacks_the_field_says_so(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = broken(tmp_path, "a.parquet", b"no parquet at all")
    assert message_of(path).startswith(f"{path}: not a Parquet file")
    pyarrow.parquet.write_table(pyarrow.table({"txt": ["a"]}), path)
    assert message_of(path) == f"{path}: no field 'text' (data.text_field); found 'txt'; did you mean 'txt'?"


def test_the_bad_file_out_of_many_is_named(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", DOCUMENTS)
    bad = broken(tmp_path, "b.jsonl", b'{"text": \n')
    write_jsonl(tmp_path / "c.jsonl", DOCUMENTS)
    assert message_of(tmp_path).startswith(f"{bad}, line 1: not JSON")


def test_a_corpus_too_small_to_set_documents_aside_says_so(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ["one", "two", "three"])
    assert "too small to set 0% aside for validation" in message_of(path, validation_fraction=0.001)


def test_a_hub_name_that_cannot_be_reached_says_so() -> None:
    message = message_of("pyhton-stdlib")  # HF_HUB_OFFLINE is set for all tests
    assert message.startswith("data.corpus='pyhton-stdlib': neither a file or folder here nor a data set")
    assert message.endswith("did you mean 'python-stdlib'?")
    message = message_of("allenai/c4", corpus_subset="en")
    assert "run `hf download allenai/c4 --repo-type dataset --include 'en/*' --local-dir DIR` elsewhere" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 1.0}, r"data\.validation_fraction=1\.0: expected"),
        ({"max_documents": 0}, r"data\.max_documents=0: expected"),
        ({"text_documents": "lines"}, r"data\.text_documents='lines'.*did you mean 'line'\?"),
    ],
)
def test_wrong_options_name_their_key(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CorpusConfig(**options)
