"""A mixture holds exactly the shares that were asked for, the same each time, and mistakes are named."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_metatok.data.corpora import CorpusConfig, open_corpus
from lightning_metatok.data.mixture import Mixture
from lightning_metatok.data.preparation import DataConfig, prepare
from lightning_metatok.data.texts import Texts, are_texts
from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenDataModule


def write(path: Path, mark: str, sizes: list[int]) -> str:
    path.write_text("".join(json.dumps({"text": f"{mark}{i} " + mark * n}) + "\n" for i, n in enumerate(sizes)))
    return str(path)


def n_bytes(documents: list[str], mark: str) -> int:
    return sum(len(d.encode()) for d in documents if d.startswith(mark))


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 60), min_size=5, max_size=40), min_size=2, max_size=4),
    weights=st.lists(st.floats(0.1, 9), min_size=4, max_size=4),
    ends=st.sampled_from(["first", "all"]),
)
def test_every_prefix_holds_the_shares_to_within_a_document_of_each(
    sizes: list[list[int]], weights: list[float], ends: Any
) -> None:
    marks, weights = "äbcd"[: len(sizes)], weights[: len(sizes)]
    sources = tuple(Texts([mark * n for n in ns]) for mark, ns in zip(marks, sizes, strict=True))
    mixture = Mixture(tuple(marks), sources, tuple(weights), ends)
    documents = list(mixture.documents())
    assert documents == list(mixture.documents())
    largest = [
        max(map(len, (d.encode() for d in source.documents()))) / w for source, w in zip(sources, weights, strict=True)
    ]
    for end in range(1, len(documents) + 1):
        rates = [n_bytes(documents[:end], mark) / w for mark, w in zip(marks, weights, strict=True)]
        # Each was the furthest behind when it got its last document.
        assert max(rates) - min(rates) <= max(largest) + 1e-9
    counts = [sum(d.startswith(mark) for d in documents) for mark in marks]
    if ends == "first":
        assert all(count <= len(ns) for count, ns in zip(counts, sizes, strict=True)), "no text is read twice"
    else:
        assert all(count >= len(ns) for count, ns in zip(counts, sizes, strict=True)), "all text is read"
    assert {name: n for name, (n, _) in mixture.read.items()} == {m: n_bytes(documents, m) for m in marks}


def test_splits_are_those_of_the_corpora_and_shares_hold_in_each(tmp_path: Path) -> None:
    names = [write(tmp_path / f"{mark}.jsonl", mark, [50] * 400) for mark in "ab"]
    config = CorpusConfig(corpus={names[0]: 3, names[1]: 1}, validation_fraction=0.2)
    corpus, alone = open_corpus(config), [open_corpus(CorpusConfig(name, validation_fraction=0.2)) for name in names]
    sides = {split: list(corpus.documents(split)) for split in corpus.splits}
    assert list(sides) == ["train", "validation", "test"]
    for one in alone:
        trains = set(one.documents("train"))
        assert not trains & {*sides["validation"], *sides["test"]}, "what trains alone trains in the mixture"
    for one, other in itertools.combinations(sides.values(), 2):
        assert not set(one) & set(other)
    train = sides["train"]
    assert n_bytes(train, "a") / sum(map(len, train)) == pytest.approx(0.75, abs=2 * 55 / sum(map(len, train)))


def test_the_fingerprint_follows_weights_and_texts(tmp_path: Path) -> None:
    a, b = (write(tmp_path / f"{mark}.jsonl", mark, [9] * 90) for mark in "ab")
    mixtures: list[dict[str, Any]] = [{a: 1, b: 1}, {a: 2, b: 1}, {b: 1, a: 1}, {a: 1}]
    prints = [open_corpus(CorpusConfig(mixture)).fingerprint() for mixture in mixtures]
    prints.append(open_corpus(CorpusConfig(mixtures[0], mixture_ends="all")).fingerprint())
    write(tmp_path / "b.jsonl", "b", [9] * 91)
    prints.append(open_corpus(CorpusConfig(mixtures[0])).fingerprint())
    assert len(set(prints)) == len(prints)
    assert prints[-1] == open_corpus(CorpusConfig(mixtures[0])).fingerprint()


def test_a_corpus_may_have_options_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(f"a{i} a" for i in range(200)))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"body": f"b{i} b"}) + "\n" for i in range(200)))
    mixture = {
        str(tmp_path / "a.txt"): {"weight": 1, "text_documents": "paragraph"},
        str(tmp_path / "b.jsonl"): {"weight": 1, "text_field": "body"},
    }
    documents = list(open_corpus(CorpusConfig(mixture)).documents("train"))
    assert abs(sum(d.startswith("a") for d in documents) - len(documents) / 2) < 12


def test_what_was_mixed_is_said_and_shares_that_long_documents_miss_are_warned_of(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", "a", [900] * 90)
    (tmp_path / "b.txt").write_text("b line of text\n" * 9000)
    lines: list[str] = []
    prepare(DataConfig({a: 1, str(tmp_path / "b.txt"): 1}, vocab_size=258, cache_dir=str(tmp_path)), lines.append)
    assert any("it ends with" in line and "a.jsonl 3" in line for line in lines), lines
    assert any(line.startswith("warning: data.corpus: ") and "50.0% was asked for" in line for line in lines), lines


def test_real_text_three_to_one(shared_data: Path, tmp_path: Path) -> None:
    mixture = {str(shared_data / "peps-train.jsonl.gz"): 3, "python-stdlib": 1}
    corpus = open_corpus(CorpusConfig(mixture, validation_corpus=str(shared_data / "peps-validation.jsonl.gz")))
    documents = list(corpus.documents("train"))
    total = sum(len(d.encode()) for d in documents)
    peps, largest = n_bytes(documents, "PEP: "), max(len(d.encode()) for d in documents)
    assert peps / total == pytest.approx(0.75, abs=largest / total)


@pytest.mark.parametrize(
    ("mixture", "expected"),
    [
        ({"python-stdlib": "much"}, "data.corpus: python-stdlib: weight 'much'; expected a number, 0 or more"),
        ({"python-stdlib": -1}, "weight -1; expected a number, 0 or more"),
        ({"python-stdlib": float("nan")}, "weight nan; expected"),
        ({"python-stdlib": True}, "weight True; expected"),
        ({"python-stdlib": {"text_field": "a"}}, "weight None; expected"),
        ({"python-stdlib": 0}, "its weights sum to 0; expected one above 0"),
        ({}, "its weights sum to 0"),
        ({"python-stdlib": {"weight": 1, "text_feld": "a"}}, "did you mean 'text_field'?"),
        ({"no/such.jsonl": 1}, "data.corpus='no/such.jsonl': no such file"),
        ((3, 4), "item 0 is int; expected text"),
        (3, "expected a path, a name, texts or a mapping"),
    ],
)
def test_mistakes_are_one_line(mixture: Any, expected: str) -> None:
    with pytest.raises(UserError) as raised:
        list(open_corpus(CorpusConfig(mixture)).documents("train"))
    assert expected in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_mixture_that_ends_with_a_wrong_word_is_refused() -> None:
    with pytest.raises(UserError, match=r"data.mixture_ends='al': expected one of first, all; did you mean 'all'"):
        CorpusConfig(mixture_ends="al")  # type: ignore[arg-type]


def stories() -> Iterator[str]:
    for i in range(100):
        yield f"Story {i}? It ends [here]."


def test_texts_from_python_are_a_corpus_however_they_come(tmp_path: Path) -> None:
    prints = set()
    for texts in (list(stories()), tuple(stories()), stories(), Texts(stories())):
        corpus = open_corpus(CorpusConfig(texts, test_fraction=0))  # type: ignore[arg-type]
        read = [*corpus.documents("train"), *corpus.documents("validation")]
        assert sorted(read) == sorted(stories())
        prints.add(corpus.fingerprint())
        assert len(repr(corpus.config)) < 500
        assert "texts from Python" in corpus.config.name
    assert len(prints) == 1


def test_lists_of_paths_stay_lists_of_paths(tmp_path: Path) -> None:
    (tmp_path / "my docs").mkdir()
    for entries in (["a b.txt", "c d.jsonl.gz"], [str(tmp_path / "my docs")], ["notes", "docs"], ["../my docs"]):
        assert not are_texts(entries)


def test_batches_come_from_texts_and_from_a_mixture_the_same_each_time(tmp_path: Path) -> None:
    a, b = (write(tmp_path / f"{mark}.jsonl", mark, [90] * 200) for mark in "ab")
    corpora: list[Any] = [list(stories()), {a: 3, b: 1}]
    for corpus in corpora:
        batches = []
        for cache in ("one", "two"):
            data = MetaTokenDataModule(
                corpus=corpus, validation_fraction=0.3, vocab_size=270, block_size=32, batch_size=2,
                cache_dir=str(tmp_path / cache),
            )  # fmt: skip
            data.setup("fit")
            batches.append([batch.tokens_BT for batch in data.context_batches(1, windows=4, largest=1)])
        assert batches[0]
        assert all(one.equal(other) for one, other in zip(*batches, strict=True))
