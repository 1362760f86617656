"""Write a page into a folder so that a reader sees the old report or the whole new one.

report.html          all in one file
report.md            the same, with its pictures in
pictures-HASH/       ... a folder that is written first, and whose name changes with what is in it
"""

import hashlib
import os
import re
import shutil
from pathlib import Path

from lightning_metatok.errors import UserError
from lightning_metatok.files import write_atomically
from lightning_metatok.report.html import html
from lightning_metatok.report.markdown import markdown
from lightning_metatok.report.page import Page

HTML, MARKDOWN, PICTURES = "report.html", "report.md", "pictures-"
OURS = re.compile(rf"{PICTURES}[0-9a-f]{{10}}")
"""Folders of earlier reports, which go; nobody else's."""


def write(page: Page, out: Path) -> None:
    """Write the page.

    Raises:
        UserError: `out` is no folder, or cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out={out}: expected a folder, this is a file")
    digest = hashlib.sha256()
    for picture in page.pictures:
        digest.update(picture.name.encode() + picture.png + (picture.csv or b""))
    folder = out / f"{PICTURES}{digest.hexdigest()[:10]}"
    temporary = out / f".{folder.name}.{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not folder.is_dir():
            temporary.mkdir()
            for picture in page.pictures:
                (temporary / f"{picture.name}.png").write_bytes(picture.png)
                if picture.csv is not None:
                    (temporary / f"{picture.name}.csv").write_bytes(picture.csv)
            os.replace(temporary, folder)
        write_atomically(out / HTML, html(page))
        write_atomically(out / MARKDOWN, markdown(page, folder.name))
        for old in out.glob(f"{PICTURES}*"):
            if old != folder and OURS.fullmatch(old.name):
                shutil.rmtree(old)
    except OSError as error:
        raise UserError(f"--out={out}: cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
