"""Lay out what the documentation site is built from: the repository's own pages, where their links already lead.

    python -m docs.stage      build/site holds README, docs, results and the files that their pages link to

Pages are written for GitHub, where they link to sources, configurations and results beside them. A site that is built
from the same tree needs no second set of links.
"""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAGE = ROOT / "build" / "site"
PARTS = ("docs", "results", "conf", "sweeps", "lightning_metatok", "tests", "benchmarks", "examples")
FILES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "Makefile")
KEPT = {".md", ".png", ".csv", ".json", ".yaml", ".py", ".txt", ".ipynb", ".svg"}


def main() -> None:
    """Copy."""
    shutil.rmtree(STAGE, ignore_errors=True)
    for part in PARTS:
        for path in sorted((ROOT / part).rglob("*")):
            if path.is_file() and path.suffix in KEPT and "__pycache__" not in path.parts:
                copy(path)
    for name in FILES:
        copy(ROOT / name)


def copy(path: Path) -> None:
    """One file, at its place."""
    to = STAGE / path.relative_to(ROOT)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)


if __name__ == "__main__":
    main()
