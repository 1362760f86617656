"""A page as a list of blocks, which HTML and Markdown are written from: both say the same.

A text may hold `**strong**` and `` `code` ``, nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Heading:
    """Of a section."""

    text: str


@dataclass(frozen=True)
class Lead:
    """The finding: what a reader takes away who reads nothing else."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Text."""

    text: str


@dataclass(frozen=True)
class Picture:
    """A PNG and what it shows. `csv`: its numbers, offered beside it; `name`: of its file, without an ending."""

    name: str
    png: bytes
    caption: str
    csv: bytes | None = None


@dataclass(frozen=True)
class Table:
    """Cells are texts; `numbers`: columns that are aligned as numbers; `caption`: what stands below, or nothing."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    caption: str = ""


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side: a row a name, a column a run; None where a run has no such picture."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Picture | None]]]


@dataclass(frozen=True)
class Listing:
    """Text as it is, folded away behind its title."""

    title: str
    text: str


Block = Heading | Lead | Paragraph | Picture | Table | Gallery | Listing


@dataclass(frozen=True)
class Page:
    """A title and its blocks."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, in the order of the page."""
        found: list[Picture] = []
        for block in self.blocks:
            if isinstance(block, Picture):
                found.append(block)
            elif isinstance(block, Gallery):
                found += [picture for _, row in block.rows for picture in row if picture is not None]
        return found
