"""`data.tokenizer` in one go: <|meta|> gets an id where it has none, and `model.vocab_size` follows the tokenizer.

So it does where `data.meta_kinds` asks for further ids: they come behind all others, whose rows begin as without them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lightning_metatok.cli.config_files import values_of
from lightning_metatok.cli.layers import last_value, read_layers
from lightning_metatok.data import MetaTokenizer
from lightning_metatok.data.kinds import MOST
from lightning_metatok.data.preparation import load_tokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.lit.run.ranks import rank

FOLLOWS = "${data.vocab_size}"
"""How `model.vocab_size` is given where it is not a number of the user's."""


def with_vocabulary(verb: str, argv: Sequence[str]) -> list[str]:
    """Return `argv` with the sizes that a given tokenizer has, and with room for further kinds of meta-tokens.

    `fit` says in a line what a tokenizer changes.

    A size that the user set stays, and so does one where most ids of the tokenizer are unused; what cannot hold the
    ids is refused where the model meets the data.

    Raises:
        UserError: what reading the tokenizer raises.
    """
    try:
        given = partial(last_value, read_layers(argv, ()))
    except UserError:  # the parser says more about a file that cannot be read
        return list(argv)
    name, size, kinds = given("data.tokenizer"), given("model.vocab_size"), kinds_of(given)
    if not isinstance(name, str) or not name or not _reads_text(given):
        n_ids = given("data.vocab_size")
        follows = size == FOLLOWS and isinstance(n_ids, int)
        return [*argv, *_room(n_ids, kinds)] if follows else list(argv)
    if size not in (None, FOLLOWS) or (size is not None and values_of(argv, ("--data.vocab_size",))):
        return list(argv)
    masked = given("data.objective") == "masked"
    tokenizer = load_tokenizer(name, given("data.add_special_tokens") is True, masked=masked)
    # What it has without further kinds, be they its own or new.
    n_ids, new = tokenizer.with_kinds(kinds).vocab_size - kinds + 1, list[str]()
    said = [f"{' and '.join(_added(tokenizer))} added"] if tokenizer.added else []
    if 2 * tokenizer.n_unused <= n_ids:
        new = [f"--data.vocab_size={n_ids}", *([f"--model.vocab_size={n_ids}"] if size is None else [])]
        new += _room(n_ids, kinds)
        if given("data.vocab_size") != n_ids:
            said.append(f"model.vocab_size={n_ids} follows")
    asks = any(argument.startswith(("-h", "--help", "--print_config")) for argument in argv)
    if said and verb == "fit" and not asks and rank() == 0:
        print(f"data.tokenizer={name}: {'; '.join(said)}")
    return [*argv, *new]


def kinds_of(given: Callable[[str], Any]) -> int:
    """Return `data.meta_kinds`; 1 where it is none that can be, which the parser says."""
    kinds = given("data.meta_kinds")
    return kinds if isinstance(kinds, int) and not isinstance(kinds, bool) and 1 <= kinds <= MOST else 1


def _room(n_ids: int, kinds: int) -> list[str]:
    return [f"--model.vocab_size={n_ids + kinds - 1}", f"--model.kinds_from={n_ids}"] if kinds > 1 else []


def _reads_text(given: Callable[[str], Any]) -> bool:
    """Whether the tokenizer is used at all: tasks in symbols bring their own."""
    return given("data.task") is None or given("data.task_options.rendering") == "text"


def _added(tokenizer: MetaTokenizer) -> list[str]:
    ids = {"<|meta|>": tokenizer.meta_id, "<|endoftext|>": tokenizer.eos_id, "<|mask|>": tokenizer.mask_id}
    return [f"{token} (id {ids[token]})" for token in tokenizer.added]
