"""The pages that show how something is added run as they are written, and print what they say they print."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from lightning_metatok.model import mechanisms
from lightning_metatok.model.attention import patterns

PAGES = Path(__file__).parents[2] / "docs" / "extend"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["pattern", "mechanism"])
def test_a_page_runs_and_prints_what_it_shows(page: str) -> None:
    registries: list[dict[str, Any]] = [mechanisms.MECHANISMS, patterns.PATTERNS]
    kept = [dict(registry) for registry in registries]
    printed, names = io.StringIO(), {"__name__": page}
    blocks = FENCED.findall((PAGES / f"{page}.md").read_text())
    assert [kind for kind, _ in blocks].count("python") >= 3
    try:
        with contextlib.redirect_stdout(printed):
            for kind, text in blocks:
                if kind == "python":
                    exec(compile(text, f"docs/extend/{page}.md", "exec"), names)
        added = [registry.keys() - content.keys() for registry, content in zip(registries, kept, strict=True)]
    finally:
        for registry, content in zip(registries, kept, strict=True):
            registry.clear()
            registry.update(content)
    assert sum(map(len, added)) == 1, "one line in one registry"
    assert printed.getvalue() == "".join(text for kind, text in blocks if not kind)
