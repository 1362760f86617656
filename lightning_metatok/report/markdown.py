"""A page as Markdown, with its pictures as files in a folder beside it."""

from collections.abc import Sequence

from lightning_metatok.report.page import Block, Gallery, Heading, Lead, Listing, Page, Paragraph, Picture, Table


def markdown(page: Page, folder: str) -> str:
    """Return the page as Markdown. `folder`: where its pictures are, as seen from it."""
    return "\n\n".join([f"# {page.title}", *(_block(block, folder) for block in page.blocks)]) + "\n"


def table(block: Table) -> str:
    """Return a table alone, for another page."""
    rule = ["---:" if column in block.numbers else "---" for column in range(len(block.header))]
    rows = "\n".join(_row(cells) for cells in (block.header, rule, *block.rows))
    return f"{rows}\n\n{block.caption}" if block.caption else rows


def _block(block: Block, folder: str) -> str:
    match block:
        case Heading():
            return f"## {block.text}"
        case Lead():
            return f"**{block.text.replace('**', '')}**"
        case Paragraph():
            return block.text
        case Picture():
            numbers = f" ([its numbers]({folder}/{block.name}.csv))" if block.csv is not None else ""
            return f"{_image(block, folder)}\n\n{block.caption}{numbers}"
        case Table():
            return table(block)
        case Gallery():
            header = ("", *block.columns)
            rows = [
                [name, *(_image(picture, folder) if picture else "–" for picture in row)] for name, row in block.rows
            ]
            return table(Table(header, rows))
        case Listing():
            fence = "`" * 4
            return f"{block.title}:\n\n{fence}\n{block.text.rstrip()}\n{fence}"


def _image(picture: Picture, folder: str) -> str:
    return f"![{picture.caption}]({folder}/{picture.name}.png)".replace("\n", " ")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
