"""Models of Hugging Face by folder or name, and one line for what may be wrong with them. Needs the extra `hf`."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from lightning_metatok.errors import UserError

Loaded = TypeVar("Loaded")
END = "<|endoftext|>"
SUPPORTED = (
    "expected a causal language model with blocks behind an embedding, such as gpt2, gpt_neox, llama, mistral, qwen2"
)


def need_transformers(key: str) -> Any:
    """Return the module transformers. Raises `UserError` where the extra is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"{key}: needs transformers: pip install 'lightning-metatok[hf]'") from error
    return transformers


def config_of(name: str, key: str) -> Any:
    """Return the config of a model, as its class of transformers.

    Args:
        name: a folder, or a name on the hub. key: what the user typed it behind.

    Raises:
        UserError: there is none, it is gated or cannot be reached, or transformers does not know its architecture.
    """
    transformers = need_transformers(key)
    if os.path.isdir(name) and not os.path.isfile(os.path.join(name, "config.json")):
        raise UserError(f"{key}={name}: expected a folder of a Hugging Face model; config.json is missing")
    return loaded(lambda: transformers.AutoConfig.from_pretrained(name), name, key)


@contextmanager
def without_bars() -> Iterator[None]:
    """Let transformers draw no progress bars while this lasts."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def loaded(load: Callable[[], Loaded], name: str, key: str) -> Loaded:
    """Return what `load` does, its errors as one line.

    Raises:
        UserError: as `config_of`, or files are missing.
    """
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        with without_bars():
            return load()
    except UserError:
        raise
    except Exception as error:
        chain = [error, error.__cause__, getattr(error.__cause__, "__cause__", None), error.__context__]
        if any(isinstance(one, GatedRepoError) for one in chain):
            raise UserError(
                f"{key}={name}: gated; accept its terms on https://huggingface.co/{name}, then: hf auth login"
            ) from error
        missing = any(isinstance(one, LocalEntryNotFoundError | RepositoryNotFoundError) for one in chain)
        if not os.path.isdir(name) and (missing or isinstance(error, OSError)):
            raise UserError(f"{key}={name}: {_where_it_is_not(name)}") from error
        reason = " ".join(str(error).split())[:300]
        if "Unrecognized configuration class" in reason or "does not recognize this architecture" in reason:
            found = re.search(r"class '[\w.]*?(\w+)Config'|model type `(\w+)`", reason)
            kind = next(filter(None, found.groups())) if found else "unknown"
            raise UserError(f"{key}={name}: architecture {kind!r}: {SUPPORTED}") from error
        raise UserError(f"{key}={name}: cannot be loaded ({type(error).__name__}: {reason})") from error


def _where_it_is_not(name: str) -> str:
    from huggingface_hub import constants

    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        return "no such folder"
    offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "it cannot be reached, or there is no such model"
    return (
        f"no such folder, and not in the local cache of Hugging Face, and {offline}; on a machine with a network: "
        f"hf download {name} --local-dir DIR, then DIR in its place"
    )


def model_of(name: str, key: str, config: Any) -> Any:
    """Return a causal language model in float32, on the CPU. Raises `UserError` as `config_of`."""
    transformers = need_transformers(key)
    return loaded(
        lambda: transformers.AutoModelForCausalLM.from_pretrained(name, config=config, dtype="float32").eval(),
        name,
        key,
    )


def tokenizer_json(name: str, key: str) -> str:
    """Return the text of the tokenizer.json of a model, made from older files where there is none.

    Raises:
        UserError: it has no tokenizer that can be written as one.
    """
    transformers = need_transformers(key)
    if os.path.isfile(path := os.path.join(name, "tokenizer.json")):
        return with_end(Path(path).read_text(encoding="utf-8"), name, key)
    tokenizer = loaded(lambda: transformers.AutoTokenizer.from_pretrained(name), name, key)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"{key}={name}: its tokenizer is no tokenizer.json")
    return with_end(str(backend.to_str()), name, key)


def with_end(text: str, name: str, key: str) -> str:
    """Return a tokenizer.json in which the token that ends texts is called <|endoftext|>; its id stays.

    So that a model whose texts end otherwise, such as with </s>, needs no new id, whose row nobody has trained.
    """
    try:
        content = json.loads(text)
        vocabulary, added = content["model"]["vocab"], content["added_tokens"]
    except (ValueError, KeyError, TypeError):
        return text
    ids = config_of(name, key).eos_token_id
    end = ids[0] if isinstance(ids, list) and ids else ids
    old = next((token["content"] for token in added if token["id"] == end), None)
    if old is None or not isinstance(vocabulary, dict) or END in vocabulary or END in {t["content"] for t in added}:
        return text
    for token in added:
        token["content"] = END if token["content"] == old else token["content"]
    if old in vocabulary:
        vocabulary[END] = vocabulary.pop(old)
    content["post_processor"] = None  # which may name it; texts are read without what it adds
    return json.dumps(content)


def is_of_words(text: str) -> bool:
    """Whether a tokenizer.json is one of our recall tasks: an id a word."""
    try:
        return bool(json.loads(text)["model"]["type"] == "WordLevel")
    except (ValueError, KeyError, TypeError):
        return False
