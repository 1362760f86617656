"""`model.base` in one go: sizes and tokenizer follow the model that it names."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lightning_metatok import hub
from lightning_metatok.cli.layers import last_value, read_layers
from lightning_metatok.cli.vocabulary import kinds_of
from lightning_metatok.data.preparation import load_tokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.files import cache_folder, write_atomically

KEY = "model.base"


def with_base(verb: str, argv: Sequence[str]) -> list[str]:
    """Return `argv` with the sizes of the base, and its tokenizer where no other is named.

    Raises:
        UserError: there is no such model, or its tokenizer cannot be read.
    """
    try:
        given = partial(last_value, read_layers(argv, ()))
    except UserError:  # the parser says more about a file that cannot be read
        return list(argv)
    name = given(KEY)
    if not isinstance(name, str) or not name:
        return list(argv)
    from lightning_metatok.cli.quiet_hub import silence
    from lightning_metatok.model.adapted.base import sizes

    hub.need_transformers(KEY)
    silence()
    theirs = hub.config_of(name, KEY)
    new: dict[str, int | str] = {f"model.{key}": value for key, value in sizes(theirs).items()}
    file = given("data.tokenizer")
    if file is None:
        file = str(tokenizer_file(name))
        new |= {"data.tokenizer": file, "data.add_special_tokens": "true"}
    kinds = kinds_of(given)
    n_all, rows = load_tokenizer(str(file), True).with_kinds(kinds).vocab_size, int(theirs.vocab_size)
    n_ids = n_all - kinds + 1
    if n_ids > rows + 1:
        raise UserError(
            f"data.tokenizer={file}: {n_ids} ids with <|meta|> and <|endoftext|>, and {KEY} has {rows} rows; expected "
            "the tokenizer of that model, of which <|meta|> alone may be new"
        )
    new["model.vocab_size"] = max(rows, n_all)
    if kinds > 1:
        new["model.kinds_from"] = n_ids
    return [*argv, *(f"--{key}={value}" for key, value in new.items())]


def tokenizer_file(name: str) -> Path:
    """Write the tokenizer of a model where prepared data lie, and return the file."""
    text = hub.tokenizer_json(name, KEY)
    folder = cache_folder() / "tokenizers"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}.json"
    if not path.exists():
        write_atomically(path, text)
    return path
