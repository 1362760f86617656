"""Plain text never becomes a special token, and every byte is accounted for."""

import functools
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from lightning_metatok.data.tokenizer import END_OF_TEXT, META, MetaTokenizer
from lightning_metatok.errors import UserError
from tests.system.helpers import documents

TEXT = ["The cat sat on the mat. The cat, the mat!\n", "def f(x):\n    return x + 1  # größer\n"] * 20
TOKENIZER = MetaTokenizer.train(TEXT, 300)
UNIGRAM = MetaTokenizer.train([*TEXT, *documents(100)], 512, "unigram")
BOTH = pytest.mark.parametrize("tokenizer", [TOKENIZER, UNIGRAM], ids=["bpe", "unigram"])
SPELLINGS = st.lists(st.sampled_from([META, END_OF_TEXT, " the", "é", "\n", "🙂"]))
texts = st.one_of(st.text(), SPELLINGS.map("".join))


@BOTH
@given(text=texts)
def test_bytes_of_the_ids_add_up_to_the_bytes_of_the_text(tokenizer: MetaTokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert int(tokenizer.bytes_V[ids].sum()) == len(text.encode())
    assert tokenizer.decode(ids) == text


@BOTH
@given(text=texts)
def test_no_text_of_a_corpus_becomes_a_special_token(tokenizer: MetaTokenizer, text: str) -> None:
    for ids in (tokenizer.encode(text), *tokenizer.encode_batch([text])):
        assert tokenizer.meta_id not in ids
        assert tokenizer.eos_id not in ids


def test_a_unigram_takes_the_likeliest_pieces_and_is_read_again_as_it_was() -> None:
    assert UNIGRAM.vocab_size == 512
    model = json.loads(UNIGRAM.to_json())["model"]
    score = dict(map(tuple, model["vocab"]))

    @functools.cache
    def best(text: str) -> float:  # of all ways to cut it
        cuts = (score[text[:n]] + best(text[n:]) for n in range(1, len(text) + 1) if text[:n] in score)
        return max(cuts, default=-math.inf) if text else 0.0

    word = "ĠlanternĠmiller"
    taken = [model["vocab"][id][0] for id in UNIGRAM.encode(" lantern miller")]
    assert "".join(taken) == word
    assert len(taken) < len(word)
    assert sum(score[piece] for piece in taken) == pytest.approx(best("Ġlantern") + best("Ġmiller"))
    again = MetaTokenizer.from_json(UNIGRAM.to_json())
    assert again.fingerprint() == UNIGRAM.fingerprint()
    assert MetaTokenizer(Tokenizer.from_str(UNIGRAM.to_json())).encode(TEXT[1]) == UNIGRAM.encode(TEXT[1])


def test_a_unigram_of_too_few_ids_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.vocab_size=258: expected at least \d+, what .*unigram needs here"):
        MetaTokenizer.train(documents(100), 258, "unigram")


def test_a_prompt_names_special_tokens() -> None:
    ids = TOKENIZER.encode_prompt(f"The{META} cat{END_OF_TEXT}")
    assert ids.count(TOKENIZER.meta_id) == 1
    assert ids[-1] == TOKENIZER.eos_id
    assert TOKENIZER.decode(ids) == f"The cat{END_OF_TEXT}"
    assert TOKENIZER.decode(ids, skip_meta=False) == f"The{META} cat{END_OF_TEXT}"
    assert TOKENIZER.meta_id not in TOKENIZER.encode(META)  # parsing a prompt leaves no trace


def test_training_is_deterministic_and_keeps_to_its_size() -> None:
    assert MetaTokenizer.train(TEXT, 300).fingerprint() == TOKENIZER.fingerprint()
    smaller = MetaTokenizer.train(TEXT, 280)
    assert smaller.fingerprint() != TOKENIZER.fingerprint()
    assert smaller.vocab_size == len(smaller.bytes_V) == 280
    assert smaller.vocab_size < TOKENIZER.vocab_size <= 300  # so little text may run out of pairs to merge
    assert (TOKENIZER.eos_id, TOKENIZER.meta_id) == (0, 1)
    assert TOKENIZER.bytes_V[:2].tolist() == [0, 0]


def test_a_saved_tokenizer_is_the_same_one(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer.json")
    loaded = MetaTokenizer.from_file(tmp_path / "tokenizer.json")
    for again in (loaded, MetaTokenizer.from_json(TOKENIZER.to_json())):
        assert again.fingerprint() == TOKENIZER.fingerprint()
        assert again.encode(TEXT[1]) == TOKENIZER.encode(TEXT[1])


def test_punctuation_ids_end_in_punctuation() -> None:
    found = {TOKENIZER.decode([id]) for id in TOKENIZER.punctuation_ids}
    assert set(".,;:!?\n") <= found
    assert all(text[-1] in ".,;:!?\n" for text in found)


def test_vocabularies_below_the_bytes_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.vocab_size=257: expected at least 258"):
        MetaTokenizer.train(TEXT, 257)
    assert MetaTokenizer.train(TEXT, 258).vocab_size == 258


def test_a_given_tokenizer_gets_its_special_tokens_only_when_asked(shared_data: Path) -> None:
    path = shared_data / "gpt2-tokenizer.json"
    with pytest.raises(UserError, match=r"no <\|meta\|> in its vocabulary; --data\.add_special_tokens=true"):
        MetaTokenizer.from_file(path)
    gpt2 = MetaTokenizer.from_file(path, add_special_tokens=True)
    assert (gpt2.eos_id, gpt2.meta_id, gpt2.vocab_size) == (50256, 50257, 50258)
    assert gpt2.encode("Hello world") == [15496, 995]
    text = f"Hello{META}{END_OF_TEXT} wörld"
    assert int(gpt2.bytes_V[gpt2.encode(text)].sum()) == len(text.encode())
    assert not {gpt2.meta_id, gpt2.eos_id} & set(gpt2.encode(text))


def test_files_that_are_no_byte_level_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        MetaTokenizer.from_file(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(UserError, match=r"cannot be loaded as a tokenizer\.json"):
        MetaTokenizer.from_file(tmp_path / "broken.json")
    words = Tokenizer(models.WordLevel({"plain word": 0, META: 1, END_OF_TEXT: 2}, unk_token="plain word"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "words.json"))
    with pytest.raises(UserError, match="'plain word' is not made of bytes"):
        MetaTokenizer.from_file(tmp_path / "words.json")
