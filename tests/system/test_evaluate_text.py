"""`evaluate --text` from a checkpoint alone: a table, JSON, and one line for what cannot be."""

import json
from pathlib import Path

import pytest

from tests.system.helpers import run, succeed


def test_long_documents_by_position(checkpoint: Path, corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    text = succeed("evaluate", f"--ckpt_path={checkpoint}", "--text", corpus, "--length=256", "--limit=3",
                   f"--output={output}")  # fmt: skip
    assert "3 documents of 256 tokens, trained on 64" in text
    for name in ("windows of 64, by 63", "sliding of 64, by 16", "whole", "128 to 255", "effective length"):
        assert name in text
    rows = json.loads(output.read_text())
    assert [row["way"]["name"] for row in rows] == ["windows", "sliding", "whole"]
    assert [one["high"] for one in rows[0]["stretches"]] == [32, 64, 128, 256]
    assert rows[1]["effective_length"] is None
    assert rows[2]["effective_length"] >= 1
    # The first half window has the same context, whatever the way.
    firsts = [row["stretches"][0]["nats"] for row in rows]
    assert max(firsts) - min(firsts) < 0.2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "--tasks, --text: expected one of the two"),
        (["--text={corpus}", "--tasks=x"], "--tasks, --text: expected one of the two"),
        (["--text={corpus}", "--length=100000"], "no document of 100000 tokens; expected a smaller --length"),
        (["--text={corpus}", "--stride=64"], "--stride=64: expected less than a window of 64 tokens"),
        (["--text={corpus}", "--length=1"], "--length=1: expected 2 or more"),
        (["--text={corpus}x"], "--text='{corpus}x'"),
    ],
)
def test_what_cannot_be_is_one_line(options: list[str], expected: str, checkpoint: Path, corpus: Path) -> None:
    outcome = run("evaluate", f"--ckpt_path={checkpoint}", *(option.format(corpus=corpus) for option in options))
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
    assert expected.format(corpus=corpus) in outcome.err
