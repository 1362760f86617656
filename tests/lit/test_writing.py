"""Text as it is written: what was shown is what stands there at the end, and nothing is shown that may change."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lightning_metatok.data import MetaTokenizer
from lightning_metatok.lit.writing import Writing

TOKENIZER = MetaTokenizer.train(["one two three"], 270)
WORDS = MetaTokenizer.from_words(["a", "b", "ab"])


@example(text="aba", stop=["b", "aba"])  # "b" is whole first, "aba" would begin earlier
@given(text=st.text("ab€é🦤�\n", max_size=12), stop=st.lists(st.text("ab€", min_size=1, max_size=3), max_size=2))
def test_the_pieces_shown_are_the_text_up_to_the_first_stop_string(text: str, stop: list[str]) -> None:
    writing, shown = Writing(TOKENIZER.decode, TOKENIZER.encode("one"), stop), ""
    ids = TOKENIZER.encode(text)
    for id in ids:
        shown += writing.take(id)
        assert text.startswith(shown)
        if writing.stopped:
            break
    shown += writing.end()
    prefixes = (TOKENIZER.decode(ids[:n]) for n in range(1, len(ids) + 1))
    met = next((prefix for prefix in prefixes if any(one in prefix for one in stop)), "")
    ends = [met.index(one) for one in stop if one in met]
    assert shown == writing.text == (text[: min(ends)] if ends else text)
    assert writing.stopped == bool(ends)


def test_what_may_begin_a_stop_string_waits_until_it_does_not() -> None:
    writing = Writing(TOKENIZER.decode, [], ["abc"])
    assert [writing.take(id) for id in TOKENIZER.encode("xabab")] == ["x", "", "", "ab", ""][:5]
    assert writing.end() == "ab"


def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    writing = Writing(TOKENIZER.decode, [])
    assert "".join(writing.take(id) for id in TOKENIZER.encode("a€")[:-1]) == "a"
    assert writing.end() == "�"


@pytest.mark.parametrize(("prompt", "shown"), [("", ["a", " ab"]), ("b", [" a", " ab"])])
def test_words_have_blanks_between_them(prompt: str, shown: list[str]) -> None:
    writing = Writing(WORDS.decode, WORDS.encode(prompt))
    assert [writing.take(id) for id in WORDS.encode("a ab")] == shown
