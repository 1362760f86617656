"""The documentation site has every page, and its map names none that is not there; `make docs` checks all links."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml


def leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from leaves(entry)


def test_every_page_is_on_the_map(repository: Path) -> None:
    nav = list(leaves(yaml.safe_load((repository / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    there = {
        str(path.relative_to(repository)) for part in ("docs", "results") for path in (repository / part).rglob("*.md")
    }
    assert sorted(nav) == sorted(set(nav)), "a page stands twice"
    assert there - set(nav) == set(), "pages that nobody finds"
    assert {page for page in nav if not (repository / page).is_file()} == set()
