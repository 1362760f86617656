"""No option comes, goes or changes its type or default unseen."""

import difflib

import pytest

from lightning_metatok.model import TransformerConfig
from tests.cli.option_surface import FILE, RENEW, surface


def changes(before: str, now: str) -> list[str]:
    """Lines that are gone and lines that are new."""
    lines = difflib.unified_diff(before.splitlines(), now.splitlines(), lineterm="", n=0)
    return [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def test_the_options_of_fit_are_those_that_are_written_down() -> None:
    changed = changes(FILE.read_text(encoding="utf-8"), surface())
    if changed:
        pytest.fail("\n".join((f"options have changed; if that is meant: {RENEW}", *changed)), pytrace=False)


def test_the_file_names_every_kind_of_option() -> None:
    text = FILE.read_text(encoding="utf-8")
    keys = {line.partition(":")[0] for line in text.splitlines()}
    assert {f"model.{name}" for name in TransformerConfig.__dataclass_fields__} <= keys
    assert {
        "run_dir",
        "data.corpus",
        "data.task",
        "trainer.max_steps",
        "model.optimizer.lr",
        "ablation.windows",
    } <= keys
    assert text.index("# every kind of data") < text.index("# text") < text.index("# task")


def test_a_change_is_one_line_away_and_one_line_back() -> None:
    assert changes("a: int = 1\nb: int = 2\n", "a: int = 1\nb: int = 3\n") == ["-b: int = 2", "+b: int = 3"]
    assert changes("a: int = 1\n", "a: int = 1\nb: int = 3\n") == ["+b: int = 3"]
