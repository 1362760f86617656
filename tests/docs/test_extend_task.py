"""The page that shows how a task is added runs as it is written, and every task says what the table shows."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

from lightning_metatok.tasks import OWN, build

DOCS = Path(__file__).parents[2] / "docs"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_runs_and_prints_what_it_shows() -> None:
    blocks = FENCED.findall((DOCS / "extend" / "task.md").read_text())
    printed = io.StringIO()
    names: dict[str, Any] = {"__name__": "task_page"}
    with contextlib.redirect_stdout(printed):
        for kind, text in blocks:
            if kind == "python":
                exec(compile(text, "docs/extend/task.md", "exec"), names)
    assert printed.getvalue() == "".join(text for kind, text in blocks if not kind)
    assert printed.getvalue().count("<|meta|>") >= 5


def test_every_task_says_what_the_table_shows() -> None:
    assert all(task.sketch and task.grows_with for task in OWN)


def test_the_prompts_with_marks_in_the_question_are_drawn_ones() -> None:
    page = (DOCS / "recall.md").read_text()
    sizes = {"n_lists": (2, 2), "list_length": (3, 3), "symbols": (8, 10, 10)}
    for mark in ("none", "before_answer", "after_key"):
        task = build("list_recall", question_mark=mark, **sizes)
        text = task.text(task.examples(1, seed=0)[0]).replace("<|meta|>", "<meta>")
        assert f"\n{mark:15}{text}\n" in page
