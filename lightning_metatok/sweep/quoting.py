"""Write a value so that the program that reads it gets the value itself.

A batch script has three readers. bash reads its commands, and sbatch the lines that begin with #SBATCH, by rules of its
own (`_get_argument` in src/sbatch/opt.c): blanks separate words, both quotes hold them together, # ends the line, and a
backslash takes the next character as it is, in quotes of either kind too. A double-quoted word with a backslash before
" and \\ means the same to sbatch and to a shell. SLURM reads the path of --output once more, as a pattern: % begins a
field, and a backslash anywhere turns fields off.
"""

import os
import re
import shlex

from lightning_metatok.errors import UserError

PLAIN = re.compile(r"(?!:)[A-Za-z0-9_@%+=:,./^~\[\]{}()*?!&|;<>-]+")
"""Words that sbatch reads as they are: a colon in front of a line would end it."""
UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Line breaks, other control characters, and bytes that are no UTF-8."""
BLANKED = re.compile(r"(het|pack)(job)", re.IGNORECASE)
"""Words that sbatch takes out of a line before it reads it."""


def checked(value: str, key: str) -> str:
    """Return `value`, which can stand in a script.

    Raises:
        UserError: it has a line break or another character that no quotes protect.
    """
    found = UNWRITABLE.search(value)
    if found:
        raise UserError(f"{key}={value!r}: {found[0]!r} cannot stand in a batch script; expected a value without it")
    return value


def for_shell(value: str, key: str) -> str:
    """One word of a command that sh or bash reads."""
    return shlex.quote(checked(value, key))


def for_sbatch(word: str, key: str) -> str:
    """One word of a line that begins with #SBATCH."""
    checked(word, key)
    if not PLAIN.fullmatch(word):
        word = '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
    # Quotes may stop and begin again within a word.
    return BLANKED.sub(r'\1""\2', word)


def as_pattern(path: str, key: str) -> str:
    """The path of a folder, as part of SLURM's pattern of a file's name.

    Raises:
        UserError: it holds a backslash, which SLURM keeps for itself.
    """
    if "\\" in path:
        raise UserError(f"{key}={path}: SLURM keeps the backslash for itself; expected a folder without one")
    return path.replace("%", "%%")


def on_search_path(path: str, key: str) -> str:
    """A folder of PYTHONPATH.

    Raises:
        UserError: it holds what separates folders there.
    """
    if os.pathsep in path:
        raise UserError(f"{key}={path}: '{os.pathsep}' separates folders of PYTHONPATH; expected a folder without it")
    return path


def split_for_sbatch(line: str, key: str) -> list[str]:
    """The words that sbatch reads in what stands behind #SBATCH.

    Raises:
        UserError: a quote that stays open, a backslash before a blank or the end, or a word that is cut by #.
    """
    checked(line.replace("\t", " "), key)
    words: list[str] = []
    word: str | None = None
    quote, i = "", 0
    while i < len(line):
        character = line[i]
        if character == "\\":
            if not quote and line[i + 1 : i + 2].strip() == "":
                raise UserError(f"{key}={line}: sbatch's backslash holds no blank; expected quotes")
            if i + 1 == len(line):
                raise UserError(f"{key}={line}: expected {quote} once more: it is open at the end")
            i += 1
            word = (word or "") + line[i]
        elif quote:
            word, quote = (word, "") if character == quote else ((word or "") + character, quote)
        elif character in "\"'":
            quote, word = character, word or ""
        elif character in " \t":
            words, word = [*words, *([] if word is None else [word])], None
        elif character == "#":
            if word is not None:
                raise UserError(f'{key}={line}: # begins a comment; expected quotes: "{word}#..."')
            break
        else:
            word = (word or "") + character
        i += 1
    if quote:
        raise UserError(f"{key}={line}: expected {quote} once more: it is open at the end")
    return [*words, *([] if word is None else [word])]


def sbatch_options(line: str, key: str) -> list[str]:
    """The words of a line of options that a user wrote for sbatch, with or without #SBATCH in front.

    Raises:
        UserError: sbatch would read something else than options in it.
    """
    words = split_for_sbatch(re.sub(r"^\s*#SBATCH\b", "", line), key)
    takes_value = False
    for word in words:
        if not word:
            raise UserError(f"{key}={line}: sbatch stops at an empty word; expected it left out")
        if not word.startswith("-") and not takes_value:
            raise UserError(f'{key}={line}: {word!r} is no option; expected --NAME=VALUE, and "..." round blanks')
        takes_value = word.startswith("-") and "=" not in word
    if not words:
        raise UserError(f"{key}={line!r}: expected options such as --exclusive")
    return words
