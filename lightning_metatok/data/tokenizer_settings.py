"""What a tokenizer.json may decide: the vocabulary and where text is cut. Nothing that changes text, or ids by chance.

Ids must keep the text, byte for byte, and be the same each time. Two families of tokenizers can do that:

    bytes      every byte is a character of the vocabulary, such as Ġ for a blank (GPT-2, Llama 3)
    fallback   pieces of text with ▁ for a blank, and <0x00> to <0xFF> for what has no piece (Llama 1 and 2, Gemma)

`switched_off` takes away what belongs to somebody else's batches; `changed` finds text that does not come back.
Source: github.com/huggingface/tokenizers, the fields of its JSON.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

Json = dict[str, Any]
Family = Literal["bytes", "fallback"]

BLANK = "▁"
FALLBACK = re.compile("<0x[0-9A-F]{2}>")
CUTS = re.compile(f"({BLANK})|(?<=<)(?=0x[0-9A-F]{{2}}>|\\|meta\\|>|\\|endoftext\\|>)")
"""Where text is cut that the family `fallback` could take for something else: ▁ is no blank, <0x41> no A."""
PROMPT_CUTS = re.compile(f"({BLANK})|(?<=<)(?=0x[0-9A-F]{{2}}>)")
"""The same where <|meta|> and <|endoftext|> name tokens."""
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTE_OF = {chr(byte): byte for byte in PRINTABLE} | {
    chr(256 + i): byte for i, byte in enumerate(sorted(set(range(256)) - set(PRINTABLE)))
}
"""Which byte each character of a byte-level vocabulary stands for (Radford et al. 2019, `bytes_to_unicode`)."""
ALPHABET = frozenset(BYTE_OF)
NEVER_IN_UTF8 = {0xC0, 0xC1, *range(0xF5, 0x100)}
SAMPLE = 20
"""Characters of a text that are shown on each side."""
SECONDS, MEMORY = 10, 4 << 30
"""CPU seconds and bytes that a tokenizer with patterns or normalisers of its own may take to be read and to read
`PROBES`, which are a few kilobytes."""

PROBES = (
    "River 42 stones, über 漢字! ",
    "  Two  blanks, a\ttab, \r\n\r\n lines \n and an end.  \n",
    "def f(x):\n        return {'a': [x_1 + 2.5e-3, \"b\"]}  # Don't; it's §3/4 @home ~ 100%\n",
    "Straße \u00c5ngstr\u00f6m A\u030angstro\u0308m \u212b n\u0303 \u00f1 \ufb01ne ① ½ ² Ⅳ ™ … “it” – ＡＢＣ ｶﾞ",
    "العَرَبِيَّة עִבְרִית हिन्दी ไทย 한국어 \u1112\u1161\u11ab 日本語 \u30ab\u3099 Ελληνικά русский ქართული አማርኛ தமிழ் İ ǅ",
    "🙂👩\u200d👧🇩🇪👍🏽 \u200b\ufeff\u00a0\u2028\u2029\u3000\u00ad\u0085\ufffd\ue000\U0010ffff ▁ _ Ġ ##",
    "<unk> </w> <0x41>",
    "".join(map(chr, range(0x800))),
    "".join(map(chr, [*range(0x800, 0xD800, 0x151), *range(0xE000, 0x10000, 0x151)])),
    "".join(map(chr, range(0x10000, 0x110000, 0x3F01))),
    "a" * 64 + "!" + "0" * 64 + "x" + " " * 64 + "." + "\n" * 64 + "-" * 64 + "_",
    "<|endoftext|>",
    "<|meta|>",
    "a<|meta|> b <|endoftext|>c",
)
"""Text that shows what a tokenizer does not keep: cases, blanks, forms, scripts, and every byte that UTF-8 has."""

CHILD = """
import contextlib, json, sys
from tokenizers import Tokenizer
print("ready", flush=True)
with contextlib.suppress(ImportError, ValueError, OSError):
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
    resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
text, probes = json.load(sys.stdin)
tokenizer = Tokenizer.from_str(text)
tokenizer.encode_special_tokens = True
for probe in probes:
    ids = tokenizer.encode(probe, add_special_tokens=False).ids
    print(json.dumps(ids[: 2 * len(probe.encode())]), flush=True)
"""
"""What the other process runs; more ids than bytes are wrong, however many there are."""


def family(content: Json) -> Family | None:
    """Which of the two families the tokenizer `content` is of, or None for one that must lose text."""
    steps = [*parts(content["normalizer"]), *parts(content["pre_tokenizer"])]
    if any(step["type"] == "ByteLevel" for step in steps):
        return "bytes"
    return "fallback" if content["model"].get("byte_fallback") else None


def parts(component: Json | None) -> Iterator[Json]:
    """The components that a normalizer, a pre_tokenizer or a decoder consists of, sequences opened."""
    if component is None:
        return
    inner = next((component[key] for key in ("normalizers", "pretokenizers", "decoders") if key in component), None)
    if inner is None:
        yield component
    else:
        for part in inner:
            yield from parts(part)


def switched_off(content: Json) -> Json:
    """Return `content` without truncation, padding, dropout, and whatever adds text or swallows blanks.

    Prefixed blanks go, so that pieces of a document are the document. The form NFC goes where bytes can be read
    without it. The decoder becomes that of the family.
    """
    kind = family(content)
    model = {**content["model"], **({"dropout": None} if "dropout" in content["model"] else {})}
    flags = {"lstrip": False, "rstrip": False, "single_word": False}
    new = {**content, "truncation": None, "padding": None, "model": model}
    if (content["post_processor"] or {}).get("type") != "ByteLevel":  # which adds no ids
        new["post_processor"] = None
    new["added_tokens"] = [{**token, **flags} for token in content["added_tokens"]]
    off = {"Prepend", "NFC"} if kind == "bytes" else {"Prepend"} if kind == "fallback" else set()
    normalizers = [part for part in parts(content["normalizer"]) if part["type"] not in off]
    if len(normalizers) < 2:
        new["normalizer"] = normalizers[0] if normalizers else None
    else:
        new["normalizer"] = {"type": "Sequence", "normalizers": normalizers}
    never: dict[str, Json] = {"ByteLevel": {"add_prefix_space": False}, "Metaspace": {"prepend_scheme": "never"}}
    new["pre_tokenizer"] = _each(content["pre_tokenizer"], lambda part: never.get(part["type"], {}))
    decoder = content["decoder"] or {}
    if kind == "bytes" and decoder.get("type") != "ByteLevel":
        new["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    if kind == "fallback":
        blanks = {"type": "Replace", "pattern": {"String": BLANK}, "content": " "}
        new["decoder"] = {"type": "Sequence", "decoders": [blanks, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    return new


def cuts_only(content: Json) -> Json:
    """Return `content` with patterns that cut text, and take nothing away where they match.

    A pattern that matches all text, inverted, is stored as one that takes away what it does not match.
    """
    isolated = lambda part: {"behavior": "Isolated"} if part.get("behavior") == "Removed" else {}  # noqa: E731
    return {**content, "pre_tokenizer": _each(content["pre_tokenizer"], isolated)}


def _each(component: Json | None, change: Callable[[Json], Json]) -> Json | None:
    """The pre_tokenizer with what `change` says of each part laid over it."""
    if component is None:
        return None
    if component["type"] == "Sequence":
        return {**component, "pretokenizers": [_each(part, change) for part in component["pretokenizers"]]}
    return {**component, **change(component)}


def token_bytes(token: str, kind: Family | None) -> bytes:
    """Return the UTF-8 bytes that a token of the vocabulary stands for; it is made of bytes where `kind` says so."""
    if kind == "bytes":
        return bytes(BYTE_OF[character] for character in token)
    if kind == "fallback":
        if FALLBACK.fullmatch(token):
            return bytes([int(token[3:5], 16)])
        token = token.replace(BLANK, " ")
    return token.encode(errors="replace")


def bytes_without_id(vocabulary: Mapping[str, int], kind: Family) -> list[int]:
    """Return the bytes that have no id, where text can hold one of them."""
    if kind == "bytes":
        missing = [byte for character, byte in BYTE_OF.items() if character not in vocabulary]
    else:
        missing = [byte for byte in range(256) if f"<0x{byte:02X}>" not in vocabulary]
    return sorted(missing) if set(missing) - NEVER_IN_UTF8 else []


def changing_normalizers(content: Json) -> list[str]:
    """Return the types of the normalizers that can change text in a way that ids do not tell."""
    blank = {"type": "Replace", "pattern": {"String": " "}, "content": BLANK}
    kept = [{"type": "ByteLevel"}] + ([blank] if family(content) == "fallback" else [])
    return [part["type"] for part in parts(content["normalizer"]) if part not in kept]


def probes(content: Json) -> list[str]:
    """Return `PROBES`, and the words that the tokenizer itself looks for."""
    words: list[str] = [token["content"] for token in content["added_tokens"][:1000]]
    for part in (*parts(content["normalizer"]), *parts(content["pre_tokenizer"])):
        pattern = part.get("pattern")
        words += [pattern["String"]] if isinstance(pattern, dict) and "String" in pattern else []
        words += [part["delimiter"]] if "delimiter" in part else []
    return [*PROBES, *(f"a {word}b  {word} {word}\n" for word in words if word and len(word) <= 1000)]


def ids_of_probes(content: Json, texts: Sequence[str], encode: Callable[[str], list[int]]) -> list[list[int]]:
    """Return the ids of each text, up to the first that takes more than `SECONDS` or `MEMORY`, or ends in a panic.

    Patterns and normalisers that somebody else wrote can take any time and memory, so that these read their first
    text in a process of their own, which is ended.
    """
    foreign = json.dumps([content["normalizer"], content["pre_tokenizer"]])
    if not changing_normalizers(content) and '"Regex"' not in foreign:
        return [encode(text) for text in texts]
    child = subprocess.Popen(
        [sys.executable, "-I", "-c", CHILD.format(memory=MEMORY, seconds=SECONDS)],
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "RUST_BACKTRACE": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    request = json.dumps([json.dumps(content), list(texts)]).encode()
    try:
        out, _ = child.communicate(request, timeout=30 * SECONDS)  # where the machine is busy, or has no limits
    except subprocess.TimeoutExpired:
        child.kill()
        out, _ = child.communicate()
    ready, *lines = out.decode().splitlines(keepends=True) or [""]
    if not ready:  # this Python cannot be started a second time
        return [encode(text) for text in texts]
    return [json.loads(line) for line in lines if line.endswith("\n")]


def sample(text: str, became: bytes) -> str:
    """Return what to say of a text whose ids stand for `became`, from a little before the first difference."""
    after = became.decode(errors="replace")
    pairs = enumerate(zip(text, after, strict=False))
    same = next((i for i, (one, other) in pairs if one != other), min(len(text), len(after)))
    start = max(0, same - SAMPLE // 2)
    before, after = text[start : same + SAMPLE], after[start : same + SAMPLE]
    look_alike = unicodedata.normalize("NFC", before) == unicodedata.normalize("NFC", after)
    show = ascii if look_alike else repr
    return f"text {show(before)} becomes {show(after)}"


@contextlib.contextmanager
def panics() -> Iterator[None]:
    """Raise what makes the library panic, which is no Exception, as a ValueError of one line."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(" ".join(str(error).split())) from error


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what the library writes to stderr by itself, when it panics, from it."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
