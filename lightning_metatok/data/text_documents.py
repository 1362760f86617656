"""Documents of a text file: the whole file, its paragraphs or its lines, as `datasets` cuts them.

    a⏎b⏎⏎c⏎      file       [a⏎b⏎⏎c⏎]
                  paragraph  [a⏎b] [c⏎]        up to an empty line
                  line       [a] [b] [] [c]

Every line break (\\n, \\r\\n, \\r) is read as \\n, and a byte order mark at the start of the file is no text. Read
here, and not by `datasets`: that keeps the mark, reads no .zst and reports bad bytes without file and line.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from lightning_metatok.data.local_files import readable
from lightning_metatok.errors import UserError

TextDocuments = Literal["file", "paragraph", "line"]
MARK = "\ufeff"


def text_documents(path: Path, kind: TextDocuments) -> Iterator[str]:
    """Yield the documents of a text file, empty ones included.

    Raises:
        UserError: the file cannot be read, or is not UTF-8; it names file and line.
    """
    with readable(path) as file:
        if kind == "file":
            yield _whole(path, file)
        elif kind == "line":
            for line in _lines(path, file):
                yield line.removesuffix("\n")
        else:
            yield from _paragraphs(_lines(path, file))


def decoded_lines(path: Path, file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, text). Raises UserError at the first line that is not UTF-8."""
    offset = 0
    for number, line in enumerate(file, 1):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _not_utf8(path, number, line[error.start], offset + error.start) from error
        offset += len(line)


def _not_utf8(path: Path, number: int, byte: int, offset: int) -> UserError:
    return UserError(
        f"{path}, line {number}: byte 0x{byte:02x} at offset {offset} is not UTF-8; expected text in UTF-8"
    )


def _whole(path: Path, file: IO[bytes]) -> str:
    content = file.read()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise _not_utf8(path, number, content[error.start], error.start) from error
    del content  # a large document is in memory once
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.removeprefix(MARK)


def _lines(path: Path, file: IO[bytes]) -> Iterator[str]:
    """Lines with their ends."""
    for number, line in decoded_lines(path, file):
        text = line.removeprefix(MARK) if number == 1 else line
        if "\r" in text:
            yield from io.StringIO(text, newline=None)
        else:
            yield text


def _paragraphs(lines: Iterator[str]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in lines:
        if line == "\n" and paragraph:
            if text := "".join(paragraph)[:-1]:
                yield text
            paragraph = []
        else:
            paragraph.append(line)
    if paragraph:
        yield "".join(paragraph)
