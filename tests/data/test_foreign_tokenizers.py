"""Whatever a tokenizer.json holds: its ids keep the text and are the same each time, or it is refused with a sample."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lightning_metatok.data import tokenizer as module
from lightning_metatok.data.tokenizer import END_OF_TEXT, META, MetaTokenizer
from lightning_metatok.data.tokenizer_training import LONGEST_WORD
from lightning_metatok.errors import UserError
from tests.data.foreign import KEPT, REFUSED, SWITCHED_OFF, byte_level, cut, llama, p, put, written
from tests.system.helpers import documents

SPELLINGS = [META, END_OF_TEXT, "<unk>", "<0x41>", " ", "  ", "▁", "Ġ", "\n", "é", "e\u0301", "🙂", " bread ", "zebra"]
TEXTS = st.one_of(st.text(), st.lists(st.sampled_from(SPELLINGS)).map("".join))
SAMPLE = next(documents(1)) + "  River 42 stones, über 漢字 e\u0301 ▁_! "


def load(folder: Path, text: str, **options: bool) -> MetaTokenizer:
    (folder / "mine.json").write_text(text, encoding="utf-8")
    return MetaTokenizer.from_file(folder / "mine.json", **options)


@cache
def kept(name: str, folder: Path) -> MetaTokenizer:
    return load(folder, KEPT[name]())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", KEPT)
@given(text=TEXTS)
def test_ids_keep_the_text_and_are_the_same_each_time(name: str, folder: Path, text: str) -> None:
    tokenizer = kept(name, folder)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert int(tokenizer.bytes_V[ids].sum()) == len(text.encode())
    assert tokenizer.encode_documents([text, text]) == [ids, ids]
    assert not {tokenizer.meta_id, tokenizer.eos_id} & set(ids)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", KEPT)
def test_what_is_stored_reads_the_same_ids(name: str, folder: Path) -> None:
    tokenizer = kept(name, folder)
    again = MetaTokenizer.from_json(tokenizer.to_json())
    assert again.fingerprint() == tokenizer.fingerprint()
    assert again.encode(SAMPLE) == tokenizer.encode(SAMPLE)
    prompt = tokenizer.encode_prompt(f"a {META} b{END_OF_TEXT}")
    assert (prompt.count(tokenizer.meta_id), prompt[-1]) == (1, tokenizer.eos_id)
    assert tokenizer.decode(prompt, skip_meta=False) == f"a {META} b{END_OF_TEXT}"


@pytest.mark.parametrize("name", sorted(SWITCHED_OFF.keys() - {"isolated"}))
def test_settings_of_somebody_elses_batches_change_no_id(name: str, folder: Path, tmp_path: Path) -> None:
    plain = load(tmp_path, byte_level().to_str())
    assert kept(name, folder).encode(SAMPLE) == plain.encode(SAMPLE)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_does_not_keep_text_is_refused(name: str, tmp_path: Path) -> None:
    text, expected = REFUSED[name]
    with pytest.raises(UserError) as refused:
        load(tmp_path, text())
    line = str(refused.value)
    assert line.startswith(f"data.tokenizer='{tmp_path / 'mine.json'}': ")
    assert expected in line
    assert "\n" not in line
    assert len(line) < 500 + len(str(tmp_path))


def test_pieces_of_a_document_are_the_document(tmp_path: Path) -> None:
    for text in (llama().to_str(), written(byte_level(), put(pre_tokenizer=p.ByteLevel()))):
        tokenizer = load(tmp_path, text)
        ids = tokenizer.encode("one two") + tokenizer.encode("three") + tokenizer.encode(" four")
        assert tokenizer.decode(ids) == "one twothree four"


def test_text_that_a_tokenizer_loses_is_found_in_the_corpus(tmp_path: Path) -> None:
    lossy = written(byte_level(), cut(p.Split("zebra", "removed")))
    tokenizer = MetaTokenizer(Tokenizer.from_str(lossy), "data.tokenizer='mine.json'", check=False)
    tokenizer._plain = Tokenizer.from_str(lossy)  # as if the look at the file had missed it
    assert tokenizer.encode_documents(["a horse", ""])[1] == []
    with pytest.raises(UserError, match=r"mine\.json': text 'and a zebra, and' becomes 'and a , and', in data\.corpus"):
        tokenizer.encode_documents(["a horse", "and a zebra, and"])


def test_a_file_of_any_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_FILE", 1000)
    with pytest.raises(UserError, match=r"mine\.json': [\d,]+ bytes; expected at most 1,000"):
        load(tmp_path, byte_level().to_str())


def test_meta_alone_is_added_where_it_is_missing(shared_data: Path, tmp_path: Path) -> None:
    gpt2 = MetaTokenizer.from_file(shared_data / "gpt2-tokenizer.json", add_meta=True)
    assert (gpt2.added, gpt2.meta_id, gpt2.eos_id, gpt2.vocab_size) == ((META,), 50257, 50256, 50258)
    assert gpt2.encode("  Hello▁ wörld") == [220, 18435, 5008, 223, 266, 30570, 335]
    assert gpt2.fingerprint() == MetaTokenizer.from_file(shared_data / "gpt2-tokenizer.json", True).fingerprint()
    lacks_both = byte_level().to_str().replace("<|endoftext|>", "<|end|>").replace(META, "<|mark|>")
    with pytest.raises(UserError, match=r"no <\|endoftext\|> and no <\|meta\|>"):
        load(tmp_path, lacks_both, add_meta=True)
    assert load(tmp_path, lacks_both, add_special_tokens=True).added == (END_OF_TEXT, META)


def test_training_reads_a_run_without_blanks_in_pieces() -> None:
    run = "".join("acgt"[byte % 4] for document in documents(3) for byte in document.encode())
    pieces = [run[start : start + LONGEST_WORD] for start in range(0, len(run), LONGEST_WORD)]
    assert len(pieces) > 3
    cut_up = MetaTokenizer.train(pieces, 300)
    assert MetaTokenizer.train([run], 300).fingerprint() == cut_up.fingerprint()
    assert cut_up.decode(cut_up.encode(run)) == run
