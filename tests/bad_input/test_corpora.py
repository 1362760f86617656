"""Text that cannot be read is named with file and line; odd text that is legal is read as it is."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from omegaconf import OmegaConf

from lightning_metatok.cli import main
from lightning_metatok.data import local_files, pieces
from lightning_metatok.data.corpora import CorpusConfig, open_corpus
from lightning_metatok.data.preparation import DataConfig, prepare
from tests.bad_input.conftest import Refused
from tests.system.helpers import documents, run

DOCUMENTS = list(documents(20))
LINES = "".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS).encode()
DEEP = b"[" * 100_000 + b"]" * 100_000
PACKED = gzip.compress(LINES)

FILES = {
    "empty.txt": (b"", "no document with text in it"),
    "blank.txt": (b" \n\n", "no document with text in it"),
    "empty.jsonl": (b"", "no document with text in it"),
    "blank.jsonl": (b'{"text": " "}\n' * 9, "no document with text in it"),
    "empty.json": (b"[]", "no document with text in it"),
    "empty.jsonl.gz": (gzip.compress(b""), "no document with text in it"),
    "short.txt": (b"one line\nand another\n", "data.corpus: its train split has"),
    "letter.txt": (b"a", "too small to set 5% aside for validation"),
    "notes.doc": (b"text", "notes.doc'"),
    "latin.txt": (b"fine\nna\xefve\n", "latin.txt, line 2: byte 0xef"),
    "latin.jsonl": (b'{"text": "fine"}\n{"text": "na\xefve"}\n', "latin.jsonl, line 2: byte 0xef"),
    "wide.txt": ("\n".join(DOCUMENTS).encode("utf-16"), "wide.txt, line 1: byte 0xff"),
    "wide.jsonl": (LINES.decode().encode("utf-16"), "wide.jsonl, line 1: byte 0xff"),
    "other.jsonl": (b'{"txet": "a"}\n', "no field 'text' (data.text_field); found 'txet'; did you mean 'txet'?"),
    "late.jsonl": (LINES + b'{"txt": "b"}\n', "line 21: no field 'text'"),
    "number.jsonl": (b'{"text": 3}\n', "line 1: field 'text' holds int, expected text"),
    "null.jsonl": (LINES + b'{"text": null}\n', "line 21: field 'text' holds NoneType, expected text"),
    "nan.jsonl": (b'{"text": NaN}\n', "line 1: field 'text' holds float, expected text"),
    "nulls.jsonl": (b"null\n", "line 1: expected an object with the field 'text', not NoneType"),
    "word.jsonl": (b'"a"\n', "line 1: expected an object with the field 'text', not str"),
    "scalar.json": (b"3", "line 1: expected an object with the field 'text', not int"),
    "group.json": (b'{\n "data": []\n}', "item 1: no field 'text' (data.text_field); found 'data'"),
    "twice.jsonl": (b'{"text": "a", "text": "b"}\n', "line 1: field 'text' is there twice"),
    "half.jsonl": (b'{"text": "a\\ud800"}\n', "line 1: field 'text' holds \\ud800, half of a surrogate pair"),
    "digits.jsonl": (b'{"text": "a", "n": ' + b"9" * 5000 + b"}\n", "line 1: a number of too many digits"),
    "deep.jsonl": (b'{"text": ' + DEEP + b"}\n", "line 1: JSON nested too deeply"),
    "deep.json": (DEEP, "line 1: JSON nested too deeply"),
    "braces.jsonl": (b"{{{\n", "line 1: not JSON"),
    "nul.jsonl": (b'{"text": "a\0b"}\n', "line 1: not JSON (Invalid control character at column 12)"),
    "broken.jsonl": (b'{"text": "a"}\n{"text": \n', "broken.jsonl, line 2: not JSON"),
    "cut.jsonl": (LINES[:-20], "cut.jsonl, line 20: not JSON (Unterminated string"),
    "cut.jsonl.gz": (PACKED[:-20], "cut.jsonl.gz: cannot be read (Compressed file ended"),
    "none.jsonl.gz": (LINES, "cannot be read (Not a gzipped file (b'{\"')); is it gzipped at all?"),
    "damaged.jsonl.gz": (PACKED[:99] + b"\xff" * 9 + PACKED[108:], "damaged.jsonl.gz: cannot be read ("),
    "more.jsonl.gz": (PACKED + b"more", "cannot be read (Not a gzipped file (b'mo'))\n"),
    "none.parquet": (b"no parquet", "none.parquet: not a Parquet file"),
    "empty.parquet": (b"", "empty.parquet: not a Parquet file"),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", FILES)
def test_text_that_cannot_be_read_is_named_with_its_line(
    name: str, fit: list[str], refused: Refused, tmp_path: Path
) -> None:
    content, expected = FILES[name]
    (tmp_path / name).write_bytes(content)
    assert expected in refused(*fit, f"--data.corpus={tmp_path / name}")


TABLES = {
    "rows": (pyarrow.array([], pyarrow.string()), "no document with text in it"),
    "numbers": (pyarrow.array([1, 2]), "field 'text' holds int64, expected text"),
    "nulls": (pyarrow.array(["a", None]), "row group 1, row 2: field 'text' holds null, expected text"),
    "bytes": (pyarrow.array([b"a", b"\xff"]), "field 'text' holds binary, expected text"),
    "not-utf-8": (pyarrow.array([b"a", b"\xff"]).view(pyarrow.string()), "row group 1: damaged"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_holds_no_text_is_named(name: str, fit: list[str], refused: Refused, tmp_path: Path) -> None:
    column, expected = TABLES[name]
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "x.parquet")
    assert expected in refused(*fit, f"--data.corpus={tmp_path / 'x.parquet'}")


def test_a_damaged_table_is_named(fit: list[str], refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": DOCUMENTS}), path)
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    assert f"{path}: not a Parquet file" in refused(*fit, f"--data.corpus={path}")
    path.write_bytes(content[:200] + b"\xff" * 50 + content[250:])
    assert f"{path}, row group 1: damaged" in refused(*fit, f"--data.corpus={path}")
    assert "no field 'body' (data.text_field); found 'text'" in refused(
        *fit, f"--data.corpus={path}", "--data.text_field=body"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bomb.txt.gz", b"\0" * 300_000),
        ("bomb.jsonl.gz", b'{"text": "a"}\n' * 30_000),
        ("line.jsonl.gz", b'{"text": "' + b"a" * 300_000 + b'"}\n'),
    ],
)
def test_a_bomb_is_refused_before_it_is_unpacked(
    name: str, content: bytes, fit: list[str], refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_files, "NO_BOMB", 100_000)
    monkeypatch.setattr(local_files, "CHUNK", 10_000)
    packed = gzip.compress(content)
    (tmp_path / name).write_bytes(packed)
    expected = f"{name}: unpacks to more than 100 times its {len(packed)} bytes; expected text"
    assert expected in refused(*fit, f"--data.corpus={tmp_path / name}")


def link(folder: Path) -> None:
    (folder / "x.txt").symlink_to("x.txt")


def dangle(folder: Path) -> None:
    (folder / "x.txt").symlink_to("nowhere")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "x.txt")


@pytest.mark.parametrize("given", ["x.txt", "", "*.txt"])
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (link, "x.txt: cannot be read (Too many levels of symbolic links)"),
        (dangle, "x.txt: cannot be read (No such file or directory)"),
        (pipe, "x.txt: a pipe; expected a regular file"),
    ],
)
def test_what_is_no_file_is_refused_and_never_opened(
    make: Callable[[Path], None], given: str, expected: str, fit: list[str], refused: Refused, tmp_path: Path
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "good.jsonl").write_bytes(LINES)
    make(folder)
    assert expected in refused(*fit, f"--data.corpus={folder / given}")


def test_validation_text_is_named_by_its_own_option(fit: list[str], refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "short.txt").write_text("hello")
    (tmp_path / "folder").mkdir()
    for name, expected in (
        ("empty.txt", "data.validation_corpus='"),
        ("short.txt", "its validation split has 3 tokens"),
        ("folder", "expected a folder with files that end in"),
        ("nowhere.txt", "no such file"),
    ):
        assert expected in refused(*fit, f"--data.validation_corpus={tmp_path / name}")


@pytest.mark.parametrize(
    ("mixture", "expected"),
    [
        ("{python-stdlib: much}", "data.corpus: python-stdlib: weight 'much'; expected a number, 0 or more"),
        ("{python-stdlib: -1}", "weight -1; expected a number, 0 or more"),
        ("{python-stdlib: 0, a.txt: 0}", "its weights sum to 0; expected one above 0"),
        ("{python-stdlib: {weight: 1, text_feld: a}}", "did you mean 'text_field'?"),
        ("{python-stdlib: 1, no/such.jsonl: 1}", "data.corpus='no/such.jsonl': no such file"),
    ],
)
def test_mixtures_that_cannot_be_are_named(mixture: str, expected: str, fit: list[str], refused: Refused) -> None:
    assert expected in refused(*fit, f"--data.corpus={mixture}")


# -- odd, but legal


def read(path: Path, **options: object) -> list[str]:
    """Every document, of all splits, in no order."""
    corpus = open_corpus(CorpusConfig(str(path), **{"test_fraction": 0.0, **options}))  # type: ignore[arg-type]
    return sorted(document for split in corpus.splits for document in corpus.documents(split))


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines,
        lambda lines: b"\xef\xbb\xbf" + lines,
        lambda lines: lines.replace(b"\n", b"\r\n"),
        lambda lines: lines.replace(b"\n", b"\n\n \n"),
        lambda lines: b"\n" + lines.rstrip(b"\n"),
        lambda lines: lines.replace(b'{"text"', b'{"x": {"y": [[[1, "a", null]]]}, "text"', 5),
        lambda lines: lines.replace(b'{"text"', b'{"n": 1e999, "text"', 5),
        lambda lines: b"[" + lines.strip().replace(b"\n", b",\n") + b"]",
        lambda lines: json.dumps([json.loads(line) for line in lines.splitlines()], indent=1).encode(),
        lambda lines: json.dumps(DOCUMENTS).encode(),
    ],
    ids=["plain", "mark", "crlf", "blank-lines", "no-end", "mixed", "infinite", "list", "indented", "strings"],
)
def test_spellings_of_the_same_documents_are_read_alike(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(change(LINES))
    assert read(tmp_path / "x.json", validation_fraction=0.5) == sorted(DOCUMENTS)


def test_nul_bytes_and_brackets_are_text_like_any_other(tmp_path: Path) -> None:
    odd = [text.replace("the", 't\0e\\[{"') + "\x7f\u2028\U0010ffff" for text in DOCUMENTS]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in odd))
    assert read(tmp_path / "x.jsonl", validation_fraction=0.5) == sorted(odd)
    (tmp_path / "y.txt").write_text("t\0e\n" * 99)
    assert "".join(reversed(read(tmp_path / "y.txt"))) == "t\0e\n" * 99


@pytest.mark.parametrize("text", ["word " * 3000, "x" * 15_000, "word " * 1500 + "\n" + "word " * 1500])
def test_lines_without_end_are_cut_and_nothing_is_lost(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE", 100)
    (tmp_path / "x.txt").write_text(text)
    tokenizer, store = prepare(DataConfig(str(tmp_path / "x.txt"), vocab_size=300, cache_dir=str(tmp_path / "cache")))
    parts = [tokenizer.decode(store.stream(split)[:-1].tolist()) for split in ("train", "validation", "test")]
    assert "".join(parts) == text
    assert 0.02 < len(parts[1] + parts[2]) / len(text) < 0.06
    assert all(len(piece) <= 200 for piece in pieces.pieces(text, 100))
    assert "".join(pieces.pieces(text, 100)) == text


def test_folders_linked_into_themselves_are_read_once(tmp_path: Path) -> None:
    inner = tmp_path / "texts" / "inner"
    inner.mkdir(parents=True)
    (inner / "a.jsonl").write_bytes(LINES)
    (inner / "up").symlink_to(tmp_path / "texts")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.txt").write_text("from elsewhere")
    (tmp_path / "texts" / "linked").symlink_to(tmp_path / "elsewhere")
    for given in (tmp_path / "texts", tmp_path / "texts" / "**"):
        assert read(given, validation_fraction=0.5) == sorted([*DOCUMENTS, "from elsewhere"])


def test_an_empty_file_among_others_is_no_mistake(tmp_path: Path) -> None:
    for name, rows in (("a", []), ("b", DOCUMENTS)):
        pyarrow.parquet.write_table(
            pyarrow.table({"text": pyarrow.array(rows, pyarrow.string())}), tmp_path / f"{name}.parquet"
        )
    (tmp_path / "c.jsonl").touch()
    (tmp_path / "d.txt").touch()
    assert read(tmp_path, validation_fraction=0.5) == sorted(DOCUMENTS)


NUMBERS = ["1e5", "2024", "1e-3", "1_000", "007", ".5", "1.5", "0x1F", "-3", "+1e+5", "true", "~"]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("text", NUMBERS)
def test_text_that_looks_like_a_number_stays_text(
    text: str, debug: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["fit", *debug, f"--data.text_field={text}", f"--data.corpus={text}", "--print_config"])
    printed = capsys.readouterr().out
    # As this program and as others read it.
    for loaded in (yaml.safe_load(printed), OmegaConf.to_container(OmegaConf.create(printed))):
        assert loaded["data"]["text_field"] == loaded["data"]["corpus"] == text


@pytest.mark.slow
def test_a_run_on_a_list_of_files_with_odd_names_can_be_validated(
    debug: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("2024/1e5.JSONL", "b.ndjson"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(LINES.replace(b'"text"', b'"1e5"'))
    listed = run(
        "fit", *debug, "--data.corpus=[2024/1e5.JSONL, b.ndjson]", "--data.text_field=1e5", "--run_dir=listed",
        f"--data.cache_dir={tmp_path / 'cache'}", "--trainer.max_steps=1", "--model.optimizer.warmup_steps=0",
    )  # fmt: skip
    assert listed.code == 0, listed
    assert "data: 2024/1e5.JSONL, b.ndjson, " in listed.out
    Path("more.yaml").write_text("data:\n  corpus:\n  - '2024'\n  - b.ndjson\n  text_field: '1e5'\n")
    again = run(
        "fit", *debug, "--config=more.yaml", "--run_dir=again", f"--data.cache_dir={tmp_path / 'cache'}",
        "--trainer.max_steps=1", "--model.optimizer.warmup_steps=0",
    )  # fmt: skip
    assert again.code == 0, again
    checkpoint = next(Path("listed/checkpoints").glob("step-*.ckpt"))
    validated = run("validate", f"--ckpt_path={checkpoint}")
    assert validated.code == 0, validated


def test_missing_files_of_a_list_are_all_named(fit: list[str], refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "there.jsonl").write_bytes(LINES)
    names = [str(tmp_path / name) for name in ("there.jsonl", "gone.txt", "lost.txt")]
    expected = f"data.corpus: no such files: '{names[1]}', '{names[2]}'"
    assert expected in refused(*fit, f"--data.corpus=[{','.join(names)}]")
    assert "data.corpus=[]: expected a file, a folder, a list of these" in refused(*fit, "--data.corpus=[]")
    same = f"--data.validation_corpus={names[0]}"
    assert "holds all of data.corpus=" in refused(*fit, f"--data.corpus={names[0]}", same)
