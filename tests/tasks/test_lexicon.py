"""Words have one rendering each, and a prompt made of them is what its text encodes to."""

import numpy as np
import pytest

from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.tasks import symbol_tokenizer
from lightning_metatok.tasks.lexicon import N_ITEMS, N_NAMES, N_NUMBERS, STRUCTURE, Lexicon, category_name
from lightning_metatok.tasks.words import CATEGORIES


def test_ids_of_symbols_never_change() -> None:
    tokenizer = symbol_tokenizer()
    for text, id in (
        ("<|endoftext|>", 0),
        ("<|meta|>", 1),
        ("0", 2),
        ("127", 129),
        ("L0", 130),
        ("L255", 385),
        ("a0", 386),
        ("a255", 641),
        ("?", 642),
        ("one", 651),
    ):
        assert tokenizer.encode_prompt(text) == [id]
    assert tokenizer.vocab_size == 2 + N_NUMBERS + N_NAMES + N_ITEMS + len(STRUCTURE)


def test_categories_have_as_many_items_each_and_every_word_is_of_one_category() -> None:
    assert len(CATEGORIES) == 40
    assert {len(items) for items in CATEGORIES.values()} == {20}
    items = [item for of_category in CATEGORIES.values() for item in of_category]
    assert len(set(items)) == len(items)
    for item in items:
        assert item.isascii()
        assert item.isalpha()
        assert item.islower()
    for name in CATEGORIES:
        assert name.isascii()
        assert name.isalpha()
        assert name.istitle()


def test_used_up_category_names_go_on_with_a_number() -> None:
    names = [category_name(["Fruits", "Tools"], i) for i in range(5)]
    assert names == ["Fruits", "Tools", "Fruits 2", "Tools 2", "Fruits 3"]


def test_words_of_symbols_are_one_id_each() -> None:
    tokenizer = symbol_tokenizer()
    lexicon = Lexicon("symbols", tokenizer, {"colon": ("", ":"), "question": ("?", "\nQ:")})
    words = np.concatenate(
        [lexicon.numbers, lexicon.names, lexicon.everything, [lexicon.phrase["question"]], [lexicon.phrase["colon"]]]
    )
    tokens, counts = lexicon.expand(words)
    assert counts.tolist() == [1] * (len(words) - 1) + [0]
    assert tokens.tolist() == [*range(2, 2 + len(words) - 2), *tokenizer.encode_prompt("?")]
    # Every name has the same items.
    assert (lexicon.items == lexicon.everything).all()


@pytest.fixture
def lexicon(tokenizer: MetaTokenizer) -> Lexicon:
    return Lexicon("text", tokenizer, {"colon": ("", ":"), "stop": ("", ".")})


def test_words_of_text_are_what_they_say(lexicon: Lexicon) -> None:
    def read(words: object) -> str:
        return lexicon.tokenizer.decode(lexicon.expand(np.asarray(words))[0])

    assert read(lexicon.numbers) == "".join(f" {i}" for i in range(N_NUMBERS))
    assert read(lexicon.names[[0, 1, 40, 41]]) == " Fruits Tools Fruits 2 Tools 2"
    for i, items in enumerate(CATEGORIES.values()):
        assert read(lexicon.items[i]) == read(lexicon.items[i + 40]) == "".join(f" {item}" for item in items)
    assert len(np.unique(lexicon.everything)) == 800
    assert read([lexicon.phrase["colon"], lexicon.phrase["stop"]]) == ":."


def test_words_encoded_alone_are_the_ids_of_the_whole_text(lexicon: Lexicon) -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        words = [
            word
            for name in generator.integers(0, N_NAMES, 3)
            for word in (
                lexicon.names[name],
                lexicon.phrase["colon"],
                *generator.choice(lexicon.items[name], 4),
                lexicon.phrase["stop"],
                generator.choice(lexicon.numbers),
            )
        ]
        tokens, counts = lexicon.expand(np.array(words))
        assert counts.sum() == len(tokens)
        assert lexicon.tokenizer.encode(lexicon.tokenizer.decode(tokens)) == tokens.tolist()


def test_raw_token_ids_stand_among_words(lexicon: Lexicon) -> None:
    word = lexicon.everything[7]
    alone, _ = lexicon.expand(np.array([word]))
    tokens, counts = lexicon.expand(np.array([*lexicon.raw([5, 300]), word, *lexicon.raw([0])]))
    assert tokens.tolist() == [5, 300, *alone, 0]
    assert counts.tolist() == [1, 1, len(alone), 1]
    assert tokens.dtype == np.int32
