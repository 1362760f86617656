"""Documents of a JSON file: objects one a line, or in one list; whatever is wrong is named with its line.

    {"text": "a", "id": 1}          [{"text": "a"},        ["a",        {
    {"text": "b", "id": "x"}         {"text": "b"}]         "b"]          "text": "a"
                                                                        }
Read by Python's own parser. That of Arrow, which `datasets` uses, ends the process by a signal where a line is `null`
or nested 50,000 levels deep, and refuses files in which some other field changes its type.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_metatok.data.local_files import readable
from lightning_metatok.data.text_documents import MARK, decoded_lines
from lightning_metatok.errors import UserError, nearest


def json_documents(path: Path, field: str) -> Iterator[str]:
    """Yield the text in `field` of each object.

    Raises:
        UserError: the file cannot be read, is no JSON, or an object has no text there; it names file and line.
    """
    with readable(path) as file:
        # A byte order mark, which files that were joined have at the start of any line.
        lines = ((number, line.removeprefix(MARK)) for number, line in decoded_lines(path, file))
        number, line = next(((number, line) for number, line in lines if line.strip(" \t\r\n")), (1, ""))
        one_a_line = any(suffix.lower() in (".jsonl", ".ndjson") for suffix in path.suffixes)
        if line.lstrip().startswith("[") or (line.strip() == "{" and not one_a_line):
            value = parsed(line + "".join(rest for _, rest in lines), path, number)
            for index, record in enumerate(value if isinstance(value, list) else [value]):
                where = f"{path}, item {index + 1}"
                yield unicode(record, where) if isinstance(record, str) else text_of(record, field, where)
            return
        while line:
            if line.strip():
                yield text_of(parsed(line.rstrip(), path, number), field, f"{path}, line {number}")
            number, line = next(lines, (0, ""))


def parsed(text: str, path: Path, first_line: int) -> Any:
    """Return the JSON value in `text`, which starts at line `first_line` of `path`, or raise UserError."""
    where = f"{path}, line {first_line}"

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{where}: field {twice!r} is there twice; expected each field once")
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        reason = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        raise UserError(f"{path}, line {first_line + error.lineno - 1}: not JSON ({reason})") from error
    except RecursionError as error:
        raise UserError(f"{where}: JSON nested too deeply; expected objects with text") from error
    except ValueError as error:
        raise UserError(f"{where}: a number of too many digits ({error})") from error


def text_of(record: Any, field: str, where: str) -> str:
    """Return the text in `field` of an object, or raise UserError."""
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected an object with the field {field!r}, not {type(record).__name__}")
    if field not in record:
        raise UserError(f"{where}: {missing_field(field, record)}")
    value = record[field]
    if not isinstance(value, str):
        raise UserError(f"{where}: field {field!r} holds {type(value).__name__}, expected text")
    return unicode(value, f"{where}: field {field!r}")


def unicode(text: str, where: str) -> str:
    """Return `text`, or raise UserError: JSON can spell half of a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise UserError(f"{where} holds {half}, half of a surrogate pair; expected Unicode text") from error
    return text


def missing_field(field: str, record: Mapping[str, Any]) -> str:
    """Return the part of a message that says which fields there are instead of `field`."""
    found = ", ".join(map(repr, record)) or "none"
    return f"no field {field!r} (data.text_field); found {found}{nearest(field, record)}"
