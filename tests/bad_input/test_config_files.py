"""Configurations that somebody else wrote: strict, bounded, and refused with file, line and key."""

from pathlib import Path

import pytest

from lightning_metatok.yaml_files import DEEPEST, LARGEST_FILE
from tests.bad_input.conftest import Refused

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

FILES = {
    "key-twice": (b"model:\n  d_model: 32\n  d_model: 64\n", "line 3: key 'd_model' stands on line 2 already"),
    "group-twice": (b"model: {d_model: 32}\ndata: {}\nmodel: {}\n", "line 3: key 'model' stands on line 1 already"),
    "tab": (b"model:\n\td_model: 32\n", "line 2: not YAML: found character '\\t'"),
    "laughs": (LAUGHS.encode(), "anchors expand to too much"),
    "anchor-in-itself": (b"model: &a\n  d_model: *a\n", "an anchor that holds itself"),
    "list-in-itself": (b"model: &a [*a]\n", "an anchor that holds itself"),
    "deep-lists": (b"model: " + b"[" * 5000 + b"]" * 5000, f"more than {DEEPEST} levels deep"),
    "deep-mappings": (b"{a: " * 3000 + b"1" + b"}" * 3000, f"more than {DEEPEST} levels deep"),
    "number-key": (b"3: x\n", "line 1: key 3: expected a name as key, got int"),
    "bool-key": (b"model:\n  yes: 1\n", "line 2: key yes: expected a name as key, got bool"),
    "null-key": (b"~: 1\n", "line 1: key ~: expected a name as key, got null"),
    "list-key": (b"? [a, b]\n: 1\n", "expected a name as key, got seq"),
    "date-key": (b"2026-01-01: 1\n", "expected a name as key, got timestamp"),
    "latin": (b"model:\n  # na\xefve\n  d_model: 32\n", "line 2: byte 0xef is not UTF-8"),
    "utf-16": ("model: {}\n".encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
    "nul": (b"model: {d_model: \x00}\n", "not YAML: special characters are not allowed"),
    "empty": (b"", "expected keys and values, got nothing"),
    "comment": (b"# nothing\n", "expected keys and values, got nothing"),
    "list": (b"- model\n", "expected keys and values, got list"),
    "word": (b"model\n", "expected keys and values, got str"),
    "number": (b"3\n", "expected keys and values, got int"),
    "huge": (b"#" * (LARGEST_FILE + 1), f"expected a configuration of at most {LARGEST_FILE}"),
    "open-list": (b"model: [", "line 1: not YAML"),
    "open-quote": (b"run_dir: 'x\n", "not YAML"),
    "two-documents": (b"model: {}\n---\ndata: {}\n", "not YAML: but found another document"),
    "no-such-anchor": (b"model: *nowhere\n", "line 1: not YAML: found undefined alias"),
    "python-object": (b"model: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
    "no-such-date": (b"run_dir: 2026-13-45\n", "not YAML: month must be in 1..12"),
    "unknown-key": (b"model: {d_modle: 3}\n", "unknown key 'model.d_modle'; did you mean 'model.d_model'?"),
    "unknown-group": (b"modle: {d_model: 3}\n", "unknown key 'modle.d_model'; did you mean 'model.d_model'?"),
    "wrong-type": (b"model: {d_model: wide}\n", "model.d_model=wide: expected int"),
    "no-such-reference": (b"model: {d_ff: '${model.d_modle}'}\n", "d_modle"),
    "reference-in-a-circle": (b"model: {d_ff: '${model.d_model}', d_model: '${model.d_ff}'}\n", "model.d_"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_mistake_in_a_file_is_named(name: str, fit: list[str], refused: Refused, tmp_path: Path) -> None:
    content, expected = FILES[name]
    (tmp_path / "mine.yaml").write_bytes(content)
    assert expected in refused(*fit, f"--config={tmp_path / 'mine.yaml'}")
