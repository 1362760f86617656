"""Tokenizer files that somebody else wrote: refused with the file and what is wrong, whatever they hold."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from lightning_metatok.data.tokenizer import LARGEST_ID, MetaTokenizer
from tests.bad_input.conftest import Refused
from tests.data import foreign
from tests.system.helpers import documents

GOOD = MetaTokenizer.train(documents(3), 300).to_json()


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    content = json.loads(GOOD)
    change(content)
    return json.dumps(content).encode()


def vocabulary(token: str, id: int) -> bytes:
    return changed(lambda content: content["model"]["vocab"].update({token: id}))


FILES = {
    "empty": (b"", "EOF while parsing"),
    "bytes": (bytes(range(256)), "did not contain valid UTF-8"),
    "nul": (b"\0" * 99, "expected value"),
    "list": (b"[]", "invalid type"),
    "deep": (b"[" * 100_000, "invalid type"),
    "no-model": (b"{}", "Model missing"),
    "cut": (GOOD.encode()[:-50], "EOF while parsing"),
    "no-such-model": (changed(lambda content: content["model"].update(type="Foo")), "ModelUntagged"),
    "no-such-token": (changed(lambda content: content["model"]["merges"].append(["qq", "zz"])), "`qq` out of vocab"),
    "no-merges": (changed(lambda content: content["model"].update(merges=3)), "MergeType"),
    "negative-id": (vocabulary("zz", -1), "expected u32"),
    "id-twice": (vocabulary("zz", 5), "have the same id 5; expected different ids"),
    "huge-id": (vocabulary("zz", 4_000_000_000), f"token 'zz' has id 4000000000; expected ids up to {LARGEST_ID}"),
    "large-id": (vocabulary("zz", 5000), "model.vocab_size=512: expected at least 5001, the ids of the tokenizer"),
    "no-bytes": (vocabulary("日本", 300), "token '日本' is not made of bytes"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_tokenizer_is_refused(name: str, fit: list[str], refused: Refused, tmp_path: Path) -> None:
    content, expected = FILES[name]
    (tmp_path / "mine.json").write_bytes(content)
    line = refused(*fit, f"--data.tokenizer={tmp_path / 'mine.json'}")
    assert expected in line
    assert "mine.json" in line or "model.vocab_size" in line


def test_what_is_no_file_is_no_tokenizer(fit: list[str], refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "loop.json").symlink_to("loop.json")
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("loop.json", "pipe.json", ""):
        assert f"data.tokenizer='{tmp_path / name}': no such file" in refused(
            *fit, f"--data.tokenizer={tmp_path / name}"
        )
    assert "data.tokenizer='no/such': cannot be loaded" in refused(*fit, "--data.tokenizer=no/such")


def test_a_tokenizer_without_meta_tokens_is_refused(fit: list[str], refused: Refused, tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))},
                                     merges=[]))  # fmt: skip
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "plain.json"))
    line = refused(*fit, f"--data.tokenizer={tmp_path / 'plain.json'}")
    assert "plain.json" in line
    assert "<|meta|>" in line
    assert "--data.add_special_tokens=true" in line


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "name", ["no-alphabet", "lowercase", "rare-pattern", "bomb", "backtracking", "whitespace", "word-level"]
)
def test_a_tokenizer_that_loses_text_is_refused(name: str, fit: list[str], refused: Refused, tmp_path: Path) -> None:
    text, expected = foreign.REFUSED[name]
    (tmp_path / "mine.json").write_text(text(), encoding="utf-8")
    line = refused(*fit, f"--data.tokenizer={tmp_path / 'mine.json'}")
    assert f"data.tokenizer='{tmp_path / 'mine.json'}': " in line
    assert expected in line


@pytest.mark.slow
def test_patterns_that_do_not_end_on_the_corpus_are_refused(fit: list[str], refused: Refused, tmp_path: Path) -> None:
    cut = foreign.cut(pre_tokenizers.Split(Regex("(z+)+$"), "isolated"))
    (tmp_path / "mine.json").write_text(foreign.written(foreign.byte_level(), cut), encoding="utf-8")
    (tmp_path / "sleep.txt").write_text("".join(f"line {i}: {'z' * 64}!\n" for i in range(30)))
    options = ("--data.text_documents=line", f"--data.corpus={tmp_path / 'sleep.txt'}")
    line = refused(*fit, *options, f"--data.tokenizer={tmp_path / 'mine.json'}")
    assert f"data.tokenizer='{tmp_path / 'mine.json'}': cannot read text that starts 'line " in line
    assert "retry-limit-in-match over" in line
