"""Files of prompts, and the lines that come back."""

import json
from pathlib import Path

import pytest

from lightning_metatok.cli import prompts
from lightning_metatok.errors import UserError
from lightning_metatok.lit.sampling import Completion


def test_a_jsonl_has_a_prompt_a_line_and_any_other_file_is_one(tmp_path: Path) -> None:
    text = '{"prompt": "a\\nb", "id": 3}\n\n{"prompt": "\u2028é"}\r\n'
    for name in ("p.jsonl", "p.txt"):
        (tmp_path / name).write_bytes(text.encode())
    lines = prompts.read(tmp_path / "p.jsonl")
    assert [(one.text, one.beside) for one in lines] == [("a\nb", {"id": 3}), ("\u2028é", {})]
    assert [one.text for one in prompts.read(tmp_path / "p.txt")] == [text]
    done = [Completion(one.text, "…", "length", 4, 2) for one in lines]
    first, second = map(json.loads, prompts.json_lines(lines, done).split("\n")[:2])
    assert first == {"id": 3, "prompt": "a\nb", "text": "…", "ended": "length", "n_prompt": 4, "n_new": 2}
    assert second["prompt"] == "\u2028é"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ('{"prompt": "x"}\nx', r"line 2: expected JSON"),
        ("[" * 100_000, "line 1: expected JSON"),
        ('{"text": "x"}', "line 1: expected an object with 'prompt'"),
        ("[1]", "line 1: expected an object with 'prompt'"),
        ('{"prompt": "\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_a_line_without_a_prompt_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        prompts.read(tmp_path / "p.jsonl")
