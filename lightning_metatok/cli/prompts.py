"""Prompts of `generate`: one of the command line, or those of a file; and what becomes of them as JSON lines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_metatok.errors import UserError

if TYPE_CHECKING:
    from lightning_metatok.lit.sampling import Completion

KEY = "prompt"


@dataclass(frozen=True)
class Prompt:
    """A prompt, and what stands beside it in its line of a file."""

    text: str
    beside: Mapping[str, Any] = field(default_factory=dict)


def given(text: str) -> list[Prompt]:
    """The prompt of the command line.

    Raises:
        UserError: it is no text.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:  # how Python passes on bytes that are no UTF-8
        raise UserError(f"--prompt={text!r}: expected text in UTF-8") from error
    return [Prompt(text)]


def read(path: Path) -> list[Prompt]:
    """Prompts of a file: of a `.jsonl` one a line, the value of `prompt`; any other file is one prompt as it stands.

    Raises:
        UserError: it cannot be read, is no text, or a line is no object with a prompt.
    """
    source = f"--prompt_file={path}"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {error.strerror}") from error
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{source}: expected text in UTF-8, byte {error.start} is none") from error
    if path.suffix != ".jsonl":
        return [Prompt(text)]
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise UserError(f"{source}: expected a line for each prompt, the file is empty")
    return [_prompt(line, f"{source}: line {number}") for number, line in lines]


def _prompt(line: str, source: str) -> Prompt:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{source}: expected JSON, such as {{"{KEY}": "text"}}') from error
    text = row.pop(KEY, None) if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise UserError(f"{source}: expected an object with {KEY!r}, a text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{source}: {KEY!r} is no text: half of a surrogate pair") from error
    return Prompt(text, row)


def json_lines(prompts: Sequence[Prompt], done: Sequence["Completion"]) -> str:
    """One object a line: what stood beside the prompt, the prompt, the text behind it, how it ended, tokens."""
    rows = (
        {
            **prompt.beside,
            KEY: prompt.text,
            "text": one.text,
            "ended": one.ended,
            "n_prompt": one.n_prompt,
            "n_new": one.n_new,
        }
        for prompt, one in zip(prompts, done, strict=True)
    )
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
