"""What the site makes of links that GitHub shows as folders: the page of that folder, or else its files there."""

import posixpath
import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Point links to folders at their README; a folder without one is named and not linked."""
    here, root = posixpath.dirname(page.file.src_uri), Path(config["docs_dir"])

    def moved(match: re.Match[str]) -> str:
        text, target, anchor = match.group(1), match.group(2), match.group(3) or ""
        place = root / posixpath.normpath(posixpath.join(here, target))
        if not place.is_dir():
            return match.group(0)
        if (place / "README.md").is_file():
            return f"[{text}]({target.rstrip('/')}/README.md{anchor})"
        return text

    return LINK.sub(moved, markdown)
