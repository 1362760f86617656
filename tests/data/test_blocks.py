"""The stream holds every document whole, and blocks are views of it."""

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_metatok.data import pieces as module
from lightning_metatok.data.blocks import PackedBlocks, TokenStore
from lightning_metatok.data.corpora import SPLITS, Corpus
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.data.writing import prepare_tokens
from lightning_metatok.errors import UserError


@pytest.fixture(scope="module")
def store(corpus: Corpus, tokenizer: MetaTokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return prepare_tokens(corpus, tokenizer, tmp_path_factory.mktemp("cache"))


def test_the_stream_is_all_documents_each_with_its_end(
    corpus: Corpus, tokenizer: MetaTokenizer, store: TokenStore
) -> None:
    for split in SPLITS:
        documents = list(corpus.documents(split))
        expected = [[*tokenizer.encode(document), tokenizer.eos_id] for document in documents]
        assert store.stream(split).tolist() == list(itertools.chain(*expected))
        starts = np.cumsum([0, *map(len, expected[:-1])])
        assert store.document_starts(split).tolist() == starts.tolist()
        assert store.n_bytes(split) == sum(len(document.encode()) for document in documents)
        assert store.n_bytes(split) == int(tokenizer.bytes_V[store.stream(split).astype(np.int64)].sum())


def test_long_documents_are_tokenised_in_pieces_and_stay_whole(
    corpus: Corpus, tokenizer: MetaTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 10)
    documents = ["one line\n" * 9, "short", "no line break at all " * 4, "ends\n\nwith breaks\n\n"]
    pieces = [piece for batch in module.batches(module.hashed_pieces(documents), 25) for piece in batch]
    assert len(pieces) > len(documents)
    rebuilt = "".join(text + "|" * (last is not None) for text, last in pieces)
    assert rebuilt == "".join(document + "|" for document in documents)


def test_blocks_tile_the_stream_at_any_length(store: TokenStore) -> None:
    stream = store.stream("train")
    for length in (16, 33, 128):
        blocks = PackedBlocks(store, "train", length)
        assert len(blocks) == len(stream) // length
        tokens_BS = blocks.tokens(np.arange(len(blocks)))
        assert tokens_BS.reshape(-1).tolist() == stream[: len(blocks) * length].tolist()


def test_blocks_start_where_they_are_told(store: TokenStore) -> None:
    blocks = PackedBlocks(store, "train", 8, np.array([5, 0, 7]))
    stream = store.stream("train")
    assert blocks.tokens(np.array([0, 2])).tolist() == [stream[5:13].tolist(), stream[7:15].tolist()]


def test_document_ids_rise_behind_each_end(store: TokenStore) -> None:
    blocks = PackedBlocks(store, "train", 50)
    indices = np.arange(len(blocks))
    is_end_BS = blocks.tokens(indices) == store.eos_id
    expected_BS = is_end_BS.cumsum(dim=1) - is_end_BS.long()  # ends strictly before each position
    assert blocks.document_ids(indices).tolist() == expected_BS.tolist()
    assert expected_BS.max() > 0


def test_a_store_goes_to_a_worker_as_a_path(store: TokenStore) -> None:
    store.stream("train")
    blocks = pickle.loads(pickle.dumps(PackedBlocks(store, "train", 16, np.array([3]))))
    assert blocks.tokens(np.array([0])).tolist() == [store.stream("train")[3:19].tolist()]
    assert len(pickle.dumps(store)) < 1000  # the stream itself is longer


def test_preparing_twice_reads_the_corpus_once(corpus: Corpus, tokenizer: MetaTokenizer, tmp_path: Path) -> None:
    seen: list[tuple[str, int, float | None]] = []
    store = prepare_tokens(corpus, tokenizer, tmp_path, lambda *said: seen.append(said))
    assert [said[:2] for said in seen[1:]] == [(split, store.n_tokens(split)) for split in SPLITS]
    assert seen[0] == ("reading", 0, None)
    assert seen[1][2] < seen[2][2] < seen[3][2] == 1  # type: ignore[operator]
    again = prepare_tokens(corpus, tokenizer, tmp_path, lambda *said: pytest.fail("tokenised again"))
    assert again.folder == store.folder


def test_large_vocabularies_take_four_bytes(corpus: Corpus, tmp_path: Path) -> None:
    tokenizer = MetaTokenizer.train(corpus.documents("train"), 270)
    assert prepare_tokens(corpus, tokenizer, tmp_path).stream("train").dtype == np.uint16
    tokenizer._plain.add_special_tokens([f"<|extra {i}|>" for i in range(2**16)])
    larger = MetaTokenizer.from_json(tokenizer.to_json())
    assert prepare_tokens(corpus, larger, tmp_path).stream("train").dtype == np.uint32


def test_a_split_shorter_than_a_block_is_refused(store: TokenStore) -> None:
    n = store.n_tokens("validation")
    assert len(PackedBlocks(store, "validation", n)) == 1
    with pytest.raises(UserError, match=rf"validation split has {n} tokens, less than one block of {n + 1}"):
        PackedBlocks(store, "validation", n + 1)


def cut(document: str, length: int) -> list[str]:
    """The pieces of a document, by trying every place for the end of one."""
    found = []
    while len(document) > 2 * length:
        end = naive_end(document[: 2 * length], length)
        found.append(document[:end])
        document = document[end:]
    return [*found, document] if document else found


def naive_end(text: str, length: int) -> int:
    """The end of the first piece."""
    inside = range(length, len(text) - 1)
    words = {at for at in inside if not text[at - 1].isspace() and not text[at + 1].isspace()}
    for places in ([at for at in inside if at in words and text[at] == " "],
                   [at + 1 for at in inside if at in words and text[at] == "\n"]):  # fmt: skip
        if places:
            return places[0]
    blanks = [at for at in range(length + 1, len(text)) if text[at] == " "]
    lines = [at + 1 for at in range(length, len(text)) if text[at] == "\n"]
    return max([*blanks, *lines], default=2 * length)


@given(document=st.text("ab \n", max_size=120), length=st.integers(1, 9))
@settings(max_examples=300)
def test_pieces_end_between_words_then_at_blanks_then_anywhere(document: str, length: int) -> None:
    found = list(module.pieces(document, length))
    assert "".join(found) == document
    assert all(0 < len(piece) <= 2 * length for piece in found)
    assert all(len(piece) >= length for piece in found[:-1])
    assert found == cut(document, length)
