"""The table of tasks in a page, from what their classes say.

python -m lightning_metatok.tasks.table docs/recall.md
"""

import sys
from pathlib import Path

from lightning_metatok.tasks import OWN

BEGIN, END = "<!-- tasks -->\n", "<!-- end of tasks -->\n"
HEAD = """| task | a prompt in symbols (marks by `hint`), and the answer | grows with |
|---|---|---|
"""


def table() -> str:
    """Return a row for each task of this package, in Markdown."""
    rows = (f"| `{task.name}` | {task.sketch} | {task.grows_with} |\n".replace("> | <", "> \\| <") for task in OWN)
    return HEAD + "".join(rows)


def with_table(page: str) -> str:
    """Return a page with the table between its two comments as it should be."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"no {BEGIN.strip()} ... {END.strip()} in the page"
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(with_table(Path(name).read_text()))
