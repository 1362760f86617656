"""How meta-tokens are spelled in text and in a tokenizer.json: <|meta|>, and further kinds <|meta_1|>, <|meta_2|>..."""

import re
from collections.abc import Iterator, Mapping

META = "<|meta|>"
SPELLED = re.compile(r"<\|meta(_\d+)?\|>")
IN_JSON = re.compile(rb',\s*\{\s*"id":\s*\d+,\s*"content":\s*"<\|meta_\d+\|>"[^{}]*\}')
"""How further kinds stand among the added tokens of a tokenizer.json."""


def token_of(kind: int) -> str:
    """Return how a kind is spelled."""
    return META if kind == 0 else f"<|meta_{kind}|>"


def known_kinds(vocabulary: Mapping[str, int]) -> Iterator[str]:
    """Yield the kinds that a vocabulary has, as they are spelled, up to the first that it has not."""
    kind = 0
    while (token := token_of(kind)) in vocabulary:
        yield token
        kind += 1


def without_kinds(tokenizer_json: bytes) -> bytes:
    """Return a tokenizer.json without its further kinds: what it makes of text."""
    return IN_JSON.sub(b"", tokenizer_json)
