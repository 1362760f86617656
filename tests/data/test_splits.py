"""What was asked to validate does, whatever the number of documents; names say which side a file is on."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_metatok.data.corpora import SPLITS, Corpus, CorpusConfig, open_corpus
from lightning_metatok.data.preparation import DataConfig, prepare
from lightning_metatok.data.splits import KEYWORDS, divide, is_aside, split_of
from lightning_metatok.errors import UserError


def lines(seed: int, count: int = 300) -> str:
    drawn = random.Random(seed)
    return "".join(f"{seed} line {j}: the river carries stone {drawn.random()}.\n" for j in range(count))


def opened(path: object, **options: object) -> Corpus:
    return open_corpus(CorpusConfig(corpus=path, **options))  # type: ignore[arg-type]


def share(corpus: Corpus) -> float:
    """Of what is held out of training."""
    train, *held = (sum(map(len, corpus.documents(split))) for split in SPLITS)
    return sum(held) / (train + sum(held))


# -- by size


@pytest.mark.one_in(3)
@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 10, 20, 40])
def test_few_files_give_the_share_that_was_asked_for(n: int, fraction: float, tmp_path: Path) -> None:
    for start in (0, 100, 200):
        for i in range(n):
            (tmp_path / f"{i}.txt").write_text(lines(start + i))
        corpus = opened(str(tmp_path), validation_fraction=fraction)
        assert fraction / 2 <= share(corpus) <= 2 * fraction
        train, validation, test = (list(corpus.documents(split)) for split in SPLITS)
        sizes = [sum(map(len, parts)) for parts in (validation, test)]
        assert 1 / 4 <= sizes[0] / sum(sizes) <= 3 / 4
        assert train == list(opened(str(tmp_path), validation_fraction=fraction, test_fraction=0).documents("train"))
        assert len("".join(train + validation + test)) == sum(len(lines(start + i)) for i in range(n))
        assert all(part.endswith("\n") for part in train), "texts are cut at the end of a line"


def test_a_large_document_among_small_ones_is_cut_and_the_small_ones_stay_whole(tmp_path: Path) -> None:
    small = [lines(i, 3) for i in range(300)]
    for big in (lines(1, 20_000), lines(2, 20_000), lines(3, 20_000), lines(4, 20_000)):
        division = divide([*small, big], 0.05)
        if not is_aside(big, 0.05):
            continue  # then its hash alone decides nothing bad
        assert division.cut_above is not None
        assert [list(division.parts(text, False)) for text in small] == [
            [] if is_aside(text, 0.05) else [text] for text in small
        ]
    big = next(text for text in map(lines, range(5, 200), [2000] * 195) if is_aside(text, 0.05))
    division = divide([*small, big], 0.05)
    (train,), (validation,) = (list(division.parts(big, aside)) for aside in (False, True))
    assert train + validation == big
    assert len(validation) / len(big) == pytest.approx(0.05, abs=0.001)


@given(st.lists(st.text("ab \n", min_size=1, max_size=300), min_size=1, max_size=8), st.floats(0.02, 0.9))
@settings(max_examples=200, deadline=None)
def test_no_text_is_lost_or_on_both_sides(documents: list[str], fraction: float) -> None:
    division = divide(documents, fraction)
    for document in documents:
        train, validation = ("".join(division.parts(document, aside)) for aside in (False, True))
        assert (train + validation).strip() == document.strip() or not (train + validation).strip()


@pytest.mark.parametrize("seed", range(5))
def test_many_small_documents_are_split_by_their_hashes_alone(seed: int) -> None:
    documents = [lines(1000 * seed + i, 2) for i in range(250)]
    division = divide(documents, 0.05)
    assert division.cut_above is None
    held = [text for text in documents if list(division.parts(text, True))]
    assert held == [text for text in documents if is_aside(text, 0.05)]


def test_the_share_is_said_where_it_is_not_what_was_asked(tmp_path: Path) -> None:
    """Each of 300 documents is too small to be cut, so that the hash alone decides."""
    texts = [lines(i, 2).strip() for i in range(600)]
    documents = [text for text in texts if not is_aside(text, 0.05)][:300]
    documents.append(next(text for text in texts if is_aside(text, 0.05)))
    (tmp_path / "x.txt").write_text("\n\n".join(documents))
    said: list[str] = []
    options = {"text_documents": "paragraph", "vocab_size": 300, "cache_dir": str(tmp_path / "cache")}
    config = DataConfig(str(tmp_path / "x.txt"), **options)  # type: ignore[arg-type]
    for _ in range(2):  # the second time out of the cache
        said.clear()
        prepare(config, said.append)
        assert said == ["warning: data.validation_fraction=0.05: 0.3% of the text is held out of training"]


def test_a_cut_is_said(tmp_path: Path) -> None:
    for i in range(2):
        (tmp_path / f"{i}.txt").write_text(lines(i))
    said: list[str] = []
    prepare(DataConfig(str(tmp_path), vocab_size=300, cache_dir=str(tmp_path / "cache")), said.append)
    (line,) = said
    assert line.startswith("data.validation_fraction=0.05: documents of more than 2")
    assert "are cut in two" in line


# -- by name


def test_the_words_are_those_of_datasets() -> None:
    from datasets.data_files import SPLIT_KEYWORDS

    assert {str(split): tuple(words) for split, words in SPLIT_KEYWORDS.items()} == KEYWORDS


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train.txt", "train"),
        ("valid.jsonl", "validation"),
        ("dev.txt.gz", "validation"),
        ("VAL.TXT", "validation"),
        ("test.parquet", "test"),
        ("train-00000-of-00002.parquet", "train"),
        ("wiki.train.tokens.txt", "train"),
        ("my_eval_3.jsonl", "test"),
        ("training/a.txt", "train"),
        ("deep/validation-1/b/c.txt", "validation"),
        ("train/test.txt", "train"),
        ("trains.txt", None),
        ("devil.txt", None),
        ("contest.txt", None),
        ("notes.txt", None),
        ("train.py", None),
        ("test/x.py", None),
        ("testing.md", None),
        ("test/a.md", "test"),
    ],
)
def test_names_are_read_as_datasets_reads_them(path: str, split: str | None) -> None:
    assert split_of(Path(path)) == split


def corpus_of(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"text of {name}")
    return folder


NAMED = {
    "three folders": (("train/a.txt", "validation/b.txt", "test/c.txt"), ["train/a.txt"], ["validation/b.txt"]),
    "three files": (("test.txt", "train.txt", "valid.txt"), ["train.txt"], ["valid.txt"]),
    "a stranger": (("README.md", "dev.txt", "train.txt"), ["train.txt"], ["dev.txt"]),
    "no word for train": (("a.txt", "b.txt", "val.txt"), ["a.txt", "b.txt"], ["val.txt"]),
    "shards": (("data/train-0.txt", "data/train-1.txt", "data/dev-0.txt"), ["data/train-0.txt", "data/train-1.txt"],
               ["data/dev-0.txt"]),
}  # fmt: skip


@pytest.mark.parametrize("pattern", ["", "**"])
@pytest.mark.parametrize("name", NAMED)
def test_files_named_for_a_split_are_in_it_and_a_line_says_so(name: str, pattern: str, tmp_path: Path) -> None:
    names, train, validation = NAMED[name]
    corpus = opened(str(corpus_of(tmp_path, *names) / pattern), test_fraction=0)
    assert list(corpus.documents("train")) == [f"text of {name}" for name in train]
    assert list(corpus.documents("validation")) == [f"text of {name}" for name in validation]
    (line,) = corpus.notes
    assert "splits by name: train " in line
    test = [name for name in names if "test" in name]
    assert corpus.splits == (SPLITS if test else ("train", "validation"))
    if test:
        assert list(corpus.documents("test")) == [f"text of {name}" for name in test]
        assert ", test 1 file (" in line
    left = {Path(name).name for name in names} - {Path(name).name for name in train + validation + test}
    assert all(name in line.partition("left out")[2] for name in left)


def test_test_files_test_where_a_share_validates(tmp_path: Path) -> None:
    corpus = opened(str(corpus_of(tmp_path, "train.txt", "test.txt")), validation_fraction=0.3)
    train, validation, test = ("".join(corpus.documents(split)) for split in SPLITS)
    assert (train + validation, test) == ("text of train.txt", "text of test.txt")
    assert "test 1 file (test.txt)" in corpus.notes[0]


def test_what_is_held_out_by_name_is_divided_where_nothing_is_named_test(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("\n\n".join(lines(i, 1) for i in range(300)))
    (tmp_path / "dev.txt").write_text("\n\n".join(lines(i, 1) for i in range(300, 400)))
    corpus = opened(str(tmp_path), text_documents="paragraph")
    whole = list(opened(str(tmp_path), text_documents="paragraph", test_fraction=0).documents("validation"))
    validation, test = (list(corpus.documents(split)) for split in SPLITS[1:])
    assert sorted(validation + test) == sorted(whole)
    assert not set(validation) & set(test)
    assert len(validation) == pytest.approx(50, abs=15)
    quarter = opened(str(tmp_path), text_documents="paragraph", test_fraction=0.25)
    assert len(list(quarter.documents("test"))) == pytest.approx(25, abs=12)
    assert set(quarter.documents("test")) < set(test), "a smaller share tests fewer documents, and no other"


def test_test_text_may_be_named(tmp_path: Path) -> None:
    corpus_of(tmp_path, "a.txt", "b.txt", "dev.txt", "c/d.txt")
    corpus = opened(str(tmp_path), test_corpus=str(tmp_path / "c"))
    assert list(corpus.documents("train")) == ["text of a.txt", "text of b.txt"]
    assert list(corpus.documents("validation")) == ["text of dev.txt"]
    assert list(corpus.documents("test")) == ["text of c/d.txt"]
    with pytest.raises(UserError, match=r"data\.test_corpus=.*: holds all of data\.corpus=.* other text to test on"):
        opened(str(tmp_path / "a.txt"), test_corpus=str(tmp_path / "a.txt"))
    with pytest.raises(UserError, match=r"data\.test_corpus='validation': .* it validates on validation"):
        opened("nobody/nothing", test_corpus="validation")
    with pytest.raises(UserError, match=r"data\.test_corpus=.*: holds all of the validation text"):
        opened(str(tmp_path), test_corpus=str(tmp_path / "dev.txt"))


@pytest.mark.parametrize("names", [("train.txt", "a.txt"), ("test.txt", "test2.txt"), ("a.txt", "b.txt")])
def test_names_for_one_side_alone_tell_nothing_apart(names: tuple[str, ...], tmp_path: Path) -> None:
    corpus = opened(str(corpus_of(tmp_path, *names)), validation_fraction=0.3)
    assert corpus.notes == ()
    assert corpus.validation is None
    assert len(corpus.train.paths) == len(names)  # type: ignore[attr-defined]


def test_the_folder_that_is_given_says_nothing_and_neither_does_a_file(tmp_path: Path) -> None:
    corpus_of(tmp_path, "train/a.txt", "train/b.txt", "test.txt", "dev.txt")
    assert opened(str(tmp_path / "train")).notes == ()
    listed = opened([str(tmp_path / "test.txt"), str(tmp_path / "dev.txt")])
    assert listed.validation is None
    assert [path.name for path in listed.train.paths] == ["test.txt", "dev.txt"]  # type: ignore[attr-defined]


# -- overlap


def test_validation_text_inside_the_corpus_does_not_train(tmp_path: Path) -> None:
    corpus_of(tmp_path, "a.txt", "b.txt", "c/d.txt", "c/e.txt")
    (tmp_path / "link.txt").symlink_to(tmp_path / "b.txt")
    corpus = opened(str(tmp_path), validation_corpus=str(tmp_path / "b.txt"))
    assert list(corpus.documents("train")) == ["text of a.txt", "text of c/d.txt", "text of c/e.txt"]
    assert corpus.notes[0].endswith("1 file of data.corpus in it, left out of training")
    corpus = opened(str(tmp_path), validation_corpus=str(tmp_path / "c"))
    assert list(corpus.documents("train")) == ["text of a.txt", "text of b.txt"]
    assert "2 files of data.corpus in it" in corpus.notes[0]


@pytest.mark.parametrize("given", ["", "*.txt", "a.txt"])
def test_validation_text_that_is_the_corpus_is_refused(given: str, tmp_path: Path) -> None:
    corpus_of(tmp_path, "a.txt")
    with pytest.raises(UserError, match=r"data\.validation_corpus=.*: holds all of data\.corpus="):
        opened(str(tmp_path / "a.txt"), validation_corpus=str(tmp_path / given))


def test_the_training_split_of_a_hub_data_set_does_not_validate() -> None:
    with pytest.raises(UserError, match=r"data\.validation_corpus='train': expected the name of a split"):
        opened("nobody/nothing", validation_corpus="train")


def test_equal_documents_on_both_sides_are_warned_about(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(lines(i, 1) for i in range(50)))
    (tmp_path / "v.txt").write_text("".join(lines(i, 1) for i in range(40, 60)))
    options = {"text_documents": "line", "vocab_size": 300, "cache_dir": str(tmp_path / "cache")}
    config = DataConfig(str(tmp_path / "a.txt"), validation_corpus=str(tmp_path / "v.txt"), test_fraction=0, **options)  # type: ignore[arg-type]
    for _ in range(2):
        said: list[str] = []
        prepare(config, said.append)
        (line,) = said
        assert line.startswith("warning: 10 of 20 documents to validate on are in the training text, too")
