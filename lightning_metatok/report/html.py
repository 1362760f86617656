"""A page as one HTML file that needs nothing else: no server, no network; light or dark as the reader's system is."""

import re
from base64 import b64encode
from html import escape

from lightning_metatok.report.page import Block, Gallery, Heading, Lead, Listing, Page, Paragraph, Picture, Table

STYLE = """
:root { color-scheme: light dark; --back: #fff; --front: #1c1e21; --soft: #5b6068; --line: #d9dce0; --card: #f5f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --back: #16181b; --front: #e6e7e9; --soft: #a2a7af; --line: #383c42; --card: #1f2226; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--front); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
.lead { font-size: 1.1rem; background: var(--card); border-left: 4px solid #0072b2;
  padding: .7rem 1rem; margin: 1rem 0; }
figure { margin: 1rem 0; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption, caption, td.empty { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: normal; }
th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
caption { caption-side: bottom; text-align: left; padding: .4rem 0; }
.gallery img { width: 400px; max-width: none; }
pre { overflow-x: auto; background: var(--card); padding: .8rem; font-size: .8rem; border-radius: 6px; }
code { font-family: ui-monospace, monospace; font-size: .92em; }
summary { cursor: pointer; }
a { color: inherit; }
@media (max-width: 600px) {
  figure > .scroll > img { width: 640px; max-width: none; }
  .stacked, .stacked tbody, .stacked tr, .stacked td, .stacked caption { display: block; }
  .stacked thead { display: none; }
  .stacked tr { padding: .5rem 0; border-bottom: 1px solid var(--line); }
  .stacked td, .stacked td.number { display: flex; gap: 1rem; justify-content: space-between; padding: .1rem 0;
    border: 0; text-align: right; white-space: normal; overflow-wrap: anywhere; }
  .stacked td::before { content: attr(data-column); color: var(--soft); text-align: left; flex: 0 0 auto;
    max-width: 45%; }
  .stacked td:first-child { font-weight: 600; }
}
"""
# A browser must not look for anything elsewhere, not even for an icon.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html(page: Page) -> str:
    """Return the page as HTML."""
    body = "\n".join(_block(block) for block in page.blocks)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,">
<title>{escape(page.title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{escape(page.title)}</h1>
{body}
</main>
</body>
</html>
"""


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f"<h2>{_inline(block.text)}</h2>"
        case Lead():
            return f'<p class="lead">{_inline(block.text)}</p>'
        case Paragraph():
            return f"<p>{_inline(block.text)}</p>"
        case Picture():
            caption = f"<figcaption>{_inline(block.caption)}{_csv(block)}</figcaption>"
            return f'<figure><div class="scroll">{_image(block)}</div>{caption}</figure>'
        case Table():
            return _table(block)
        case Gallery():
            return _gallery(block)
        case Listing():
            title, text = escape(block.title), escape(block.text)
            return f"<details><summary>{title}</summary><pre>{text}</pre></details>"


def _inline(text: str) -> str:
    """Text with `code` and **strong** as HTML."""
    parts = re.split(r"`([^`]*)`", text)
    for number, part in enumerate(parts):
        safe = escape(part)
        parts[number] = f"<code>{safe}</code>" if number % 2 else re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe)
    return "".join(parts)


def _image(picture: Picture) -> str:
    data = b64encode(picture.png).decode()
    return f'<img alt="{escape(picture.caption)}" src="data:image/png;base64,{data}">'


def _csv(picture: Picture) -> str:
    if picture.csv is None:
        return ""
    name, data = escape(f"{picture.name}.csv"), b64encode(picture.csv).decode()
    return f' <a download="{name}" href="data:text/csv;base64,{data}">its numbers (CSV)</a>'


def _table(table: Table) -> str:
    """A table, whose rows a narrow screen stacks: every cell knows the name of its column."""
    kinds = [' class="number"' if column in table.numbers else "" for column in range(len(table.header))]
    head = "".join(f"<th{kind}>{_inline(cell)}</th>" for kind, cell in zip(kinds, table.header, strict=True))
    named = [
        f' data-column="{escape(name.replace("`", ""))}"{kind}' for name, kind in zip(table.header, kinds, strict=True)
    ]
    cells = (
        [f"<td{name}><span>{_inline(cell)}</span></td>" for name, cell in zip(named, row, strict=True)]
        for row in table.rows
    )
    rows = "\n".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    caption = f"<caption>{_inline(table.caption)}</caption>" if table.caption else ""
    return (
        f'<div class="scroll"><table class="stacked">{caption}<thead><tr>{head}</tr></thead>'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _gallery(gallery: Gallery) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in ("", *gallery.columns))
    rows = []
    for name, pictures in gallery.rows:
        cells = [
            f"<td>{_image(picture)}{_csv(picture)}</td>" if picture else '<td class="empty">–</td>'
            for picture in pictures
        ]
        rows.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return f'<div class="scroll gallery"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
