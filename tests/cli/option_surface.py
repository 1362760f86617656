"""All options of `fit` with their types and defaults, as text: what a user can rely on, and what a change changes.

python -m tests.cli.option_surface     writes option_surface.txt beside this file (`make options`)
"""

from collections.abc import Iterator
from pathlib import Path

from lightning_metatok.cli.dry_parser import parser_of
from lightning_metatok.cli.kinds import KINDS
from lightning_metatok.cli.option_types import typed

FILE = Path(__file__).with_suffix(".txt")
RENEW = "make options"


def surface() -> str:
    """A line an option: of all kinds of data first, then of each."""
    of_kind = {kind: dict(lines_of(kind)) for kind in KINDS}
    common = {key: line for key, line in of_kind["text"].items() if all(of.get(key) == line for of in of_kind.values())}
    parts = {"every kind of data": common}
    parts |= {kind: {key: line for key, line in of.items() if key not in common} for kind, of in of_kind.items()}
    return "\n".join(
        "".join(f"{line}\n" for line in (f"# {name}", *(of[key] for key in sorted(of)))) for name, of in parts.items()
    )


def lines_of(kind: str) -> Iterator[tuple[str, str]]:
    """(key, "key: type = default") of every option of a kind of data."""
    for key, what, default in typed(parser_of(kind)):
        yield key, f"{key}: {what} = {default}"


if __name__ == "__main__":
    FILE.write_text(surface(), encoding="utf-8")
