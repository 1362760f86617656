"""A byte-level tokenizer that owns the ids of `<|meta|>` and `<|endoftext|>`, around Hugging Face `tokenizers`; also
that of `<|mask|>`, where tokens are hidden (`with_mask`), and those of further kinds of meta-tokens (`with_kinds`).

Two ways in: `encode` treats its text as plain text, even where it spells `<|meta|>` (a corpus must not be
able to write meta-tokens); `encode_prompt` reads such spellings as the tokens they name.

Every id stands for a fixed number of UTF-8 bytes, `bytes_V`, which turns a loss per token into bits per byte, the
figure that can be compared between vocabularies. The bytes of the ids of a text are those of the text, which is checked
when a tokenizer is read, and for every document of a corpus; what a tokenizer.json says against that is switched off
or refused, see `tokenizer_settings`.
Source: Radford et al. 2019, section 2.2 (byte level).
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from torch import Tensor

from lightning_metatok.data import tokenizer_settings as settings
from lightning_metatok.data.kinds import KEY, check_kinds
from lightning_metatok.data.tokenizer_training import Model, trained
from lightning_metatok.errors import UserError
from lightning_metatok.meta_tokens import META, known_kinds, token_of

END_OF_TEXT = "<|endoftext|>"
MASK = "<|mask|>"
SPECIALS = (END_OF_TEXT, META)
SMALLEST_VOCABULARY = 256 + len(SPECIALS)
PUNCTUATION = tuple(".,;:!?\n")
LARGEST_ID = (1 << 24) - 1
"""Tables have a row for every id up to the largest; the largest vocabularies there are stay below a million."""
LARGEST_FILE = 1 << 27
"""Bytes of a tokenizer.json; a vocabulary of 262,144 takes 33 million."""


class MetaTokenizer:
    """Text to ids and back, with `<|meta|>` (`meta_id`), `<|endoftext|>` (`eos_id`) and maybe `<|mask|>` (`mask_id`).

    Args:
        tokenizer: a tokenizer of bytes, or one that falls back to bytes, that has both special tokens.
        source: what error messages call it.
        check: False for one that was checked before, or that reads words alone.

    Raises:
        UserError: a special token is missing, or some text does not come back from its ids.
    """

    def __init__(self, tokenizer: Tokenizer, source: str = "tokenizer", *, check: bool = True) -> None:
        known = tokenizer.get_vocab(with_added_tokens=True)
        missing = [special for special in SPECIALS if special not in known]
        if missing:
            raise UserError(
                f"{source}: no {' and no '.join(missing)} in its vocabulary; "
                f"--data.add_special_tokens=true adds what is missing"
            )
        if max(known.values()) > LARGEST_ID:
            token = max(known, key=lambda token: known[token])
            raise UserError(f"{source}: token {token!r} has id {known[token]}; expected ids up to {LARGEST_ID}")
        if len(set(known.values())) < len(known):
            first: dict[int, str] = {}
            token = next(token for token, id in known.items() if first.setdefault(id, token) != token)
            raise UserError(
                f"{source}: tokens {first[known[token]]!r} and {token!r} have the same id {known[token]}; "
                "expected different ids"
            )
        given = json.loads(tokenizer.to_str())
        content = settings.switched_off(given)
        self.source, self._family = source, settings.family(content)
        self.added: tuple[str, ...] = ()
        """Special tokens that got an id when the tokenizer was read."""
        self.kinds: tuple[str, ...] = tuple(known_kinds(known))
        """Meta-tokens as they are spelled, `<|meta|>` first."""
        self.meta_ids: tuple[int, ...] = tuple(known[token] for token in self.kinds)
        self.meta_id: int = self.meta_ids[0]
        self.eos_id: int = known[END_OF_TEXT]
        self.mask_id: int | None = known.get(MASK)
        self.vocab_size: int = max(known.values()) + 1
        self.n_unused: int = self.vocab_size - len(known)
        self._plain = _special(tokenizer if content == given else Tokenizer.from_str(json.dumps(content)))
        vocabulary = self._plain.get_vocab(with_added_tokens=False)
        if self._family != "fallback":
            added = {token.content for token in self._plain.get_added_tokens_decoder().values()}
            for token in vocabulary:
                if token not in added and not settings.ALPHABET.issuperset(token):
                    raise UserError(f"{source}: token {token!r} is not made of bytes; expected a byte-level tokenizer")
        if check:
            self._check(content, vocabulary)
        if (cuts := settings.cuts_only(content)) != content:
            self._plain = _special(Tokenizer.from_str(json.dumps(cuts)))

    def _check(self, content: settings.Json, vocabulary: dict[str, int]) -> None:
        """Raise UserError unless every text keeps its bytes, as far as the settings and `PROBES` tell."""
        surely = True
        if self._family is not None and (missing := settings.bytes_without_id(vocabulary, self._family)):
            why = f"{len(missing)} of 256 bytes have no id; expected a vocabulary with every byte"
        elif changing := settings.changing_normalizers(content):
            why = f"normalizer {' and '.join(changing)}; expected none that changes text"
        else:
            cutters = [part["type"] for part in settings.parts(content["pre_tokenizer"])]
            why = f"pre_tokenizer {' and '.join(cutters) or 'null'}, model {content['model']['type']}; "
            why, surely = f"{why}expected a tokenizer that keeps text", False
        texts = settings.probes(content)
        if self._family == "fallback":
            texts = [piece for text in texts for piece in settings.CUTS.split(text)[::2]]
        found = settings.ids_of_probes(content, texts, lambda text: self._ids([text])[0])
        for text, ids in zip(texts, found, strict=False):
            if (became := self._joined(ids)) != text.encode():
                raise UserError(f"{self.source}: {settings.sample(text, became)} ({why})")
        if len(found) < len(texts):
            start = texts[len(found)][: settings.SAMPLE]
            raise UserError(f"{self.source}: text {start!r}... takes too much time or memory to read ({why})")
        if surely:
            raise UserError(f"{self.source}: {why}")

    @property
    def dtype(self) -> np.dtype[Any]:
        """What an id is kept as: uint16 where all fit, else uint32."""
        return np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)

    @classmethod
    def train(cls, documents: Iterable[str], vocab_size: int, model: Model = "bpe") -> "MetaTokenizer":
        """Return a tokenizer of at most `vocab_size` ids, both specials and all 256 bytes included.

        The same documents in the same order give the same BPE, and nearly the same Unigram (`tokenizer_training`).

        Raises:
            UserError: `vocab_size` is below 258, or less than a Unigram of this text can do with.
        """
        if vocab_size < SMALLEST_VOCABULARY:
            raise UserError(
                f"data.vocab_size={vocab_size}: expected at least {SMALLEST_VOCABULARY}, "
                f"which is 256 bytes and {len(SPECIALS)} special tokens"
            )
        tokenizer = trained(documents, vocab_size, model, specials=SPECIALS)
        return cls(tokenizer, check=False)

    @classmethod
    def from_words(cls, words: Sequence[str]) -> "MetaTokenizer":
        """Return a tokenizer of one id a word; text is words with blanks between them.

        Ids: <|endoftext|>, <|meta|>, then `words` in order. They are different, of printable ASCII, without blanks.
        """
        vocabulary = {word: id for id, word in enumerate((*SPECIALS, *words))}
        assert len(vocabulary) == len(SPECIALS) + len(words), "words must be different"
        tokenizer = Tokenizer(models.WordLevel(vocabulary))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return cls(tokenizer, check=False)

    @classmethod
    def from_file(
        cls, path: str | Path, add_special_tokens: bool = False, *, add_meta: bool = False
    ) -> "MetaTokenizer":
        """Return the tokenizer of a `tokenizer.json`.

        Args:
            add_special_tokens: give missing special tokens ids.
            add_meta: give <|meta|> an id where it alone is missing.

        Raises:
            UserError: no such file, not a tokenizer, or what the constructor raises.
        """
        source = f"data.tokenizer={str(path)!r}"
        if not os.path.isfile(path):
            raise UserError(f"{source}: no such file")
        if (size := os.path.getsize(path)) > LARGEST_FILE:
            raise UserError(f"{source}: {size:,} bytes; expected at most {LARGEST_FILE:,}")
        return cls._checked(lambda: Tokenizer.from_file(str(path)), source, add_special_tokens, add_meta)

    @classmethod
    def from_hub(cls, name: str, add_special_tokens: bool = False, *, add_meta: bool = False) -> "MetaTokenizer":
        """Return the tokenizer of the Hugging Face repository `name`. Raises as `from_file` does."""
        source = f"data.tokenizer={name!r}"
        return cls._checked(lambda: Tokenizer.from_pretrained(name), source, add_special_tokens, add_meta)

    @classmethod
    def from_json(cls, text: str, source: str = "tokenizer") -> "MetaTokenizer":
        """Return the tokenizer that `to_json` wrote; `source`: what error messages call it."""
        return cls(Tokenizer.from_str(text), source, check=False)

    @classmethod
    def _checked(cls, load: Callable[[], Tokenizer], source: str, add: bool, add_meta: bool) -> "MetaTokenizer":
        try:
            with settings.silence(), settings.panics():
                tokenizer = load()
        except Exception as error:  # `tokenizers` raises bare Exception for anything wrong
            reason = " ".join(str(error).split())
            raise UserError(f"{source}: cannot be loaded as a tokenizer.json: {reason}") from error
        missing = tuple(special for special in SPECIALS if tokenizer.token_to_id(special) is None)
        added = missing if add or (add_meta and missing == (META,)) else ()
        if added:
            tokenizer.add_special_tokens(list(added))
        read = cls(tokenizer, source)
        read.added = added
        return read

    def with_mask(self) -> "MetaTokenizer":
        """Return this tokenizer with `<|mask|>`: where it has none, the next free id; all others keep theirs."""
        return self if self.mask_id is not None else self._with([MASK])

    def with_kinds(self, n: int) -> "MetaTokenizer":
        """Return this one with `n` kinds of meta-tokens, new ones with the next free ids; UserError if it has more."""
        check_kinds(n)
        if (known := len(self.kinds)) > n:
            raise UserError(f"{KEY}={n}: {self.source} has {known} kinds of meta-tokens; expected {known}")
        return self if known == n else self._with([token_of(kind) for kind in range(known, n)])

    def _with(self, new: list[str]) -> "MetaTokenizer":
        tokenizer = Tokenizer.from_str(self.to_json())
        tokenizer.add_special_tokens(list[str | AddedToken](new))
        more = MetaTokenizer(tokenizer, self.source, check=False)
        more.added = (*self.added, *new)
        return more

    def to_json(self) -> str:
        """Return the whole tokenizer as the text of a `tokenizer.json`."""
        return str(self._plain.to_str())

    def save(self, path: str | Path) -> None:
        """Write a `tokenizer.json` that any Hugging Face tool reads."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, read as plain text: never a meta-token's, `eos_id` or `mask_id`."""
        return self._ids([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text, on all cores."""
        return self._ids(texts, on_all_cores=True)

    def encode_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode_batch` of `texts`, after a look at each: its ids stand for its bytes.

        Raises:
            UserError: the ids of a text stand for another one, or its patterns take too many steps.
        """
        try:
            with settings.panics():
                ids_of_texts = self.encode_batch(texts)
        except ValueError as error:
            raise UserError(f"{self.source}: cannot read text that starts {texts[0][:40]!r}: {error}") from error
        for text, ids in zip(texts, ids_of_texts, strict=True):
            if (became := self._joined(ids)) != text.encode():
                raise UserError(
                    f"{self.source}: {settings.sample(text, became)}, in data.corpus; "
                    "expected a tokenizer that keeps text"
                )
        return ids_of_texts

    def encode_prompt(self, text: str) -> list[int]:
        """Return the ids of `text`, in which `<|meta|>`, `<|endoftext|>` and `<|mask|>` name the special tokens."""
        return self._ids([text], self._parsing)[0]

    def decode(self, ids: Iterable[int], skip_meta: bool = True) -> str:
        """Return the text of `ids`; meta-tokens are left out unless `skip_meta` is False."""
        kept = [int(id) for id in ids if not (skip_meta and int(id) in self.meta_ids)]
        if self._family is None:  # words, with blanks between them
            return str(self._plain.decode(kept, skip_special_tokens=False))
        specials = {id: token.encode() for token, id in self._specials.items()}
        return b"".join(specials.get(id, self._bytes.get(id, b"")) for id in kept).decode(errors="replace")

    def _ids(
        self, texts: Sequence[str], tokenizer: Tokenizer | None = None, on_all_cores: bool = False
    ) -> list[list[int]]:
        """The ids of each text. What reads ▁ as a blank is never given one: it is spelled in bytes."""
        reader, cuts = (self._plain, settings.CUTS) if tokenizer is None else (tokenizer, settings.PROMPT_CUTS)
        # Pieces, and between two of them what parts them: ▁, or nothing.
        parted = [cuts.split(text) if self._family == "fallback" else [text] for text in texts]
        pieces = [piece for parts in parted for piece in parts[::2]]
        if on_all_cores:
            encodings = iter(reader.encode_batch_fast(pieces, add_special_tokens=False))
        else:
            encodings = iter([reader.encode(piece, add_special_tokens=False) for piece in pieces])
        spelled = [reader.token_to_id(f"<0x{byte:02X}>") or 0 for byte in settings.BLANK.encode()]
        found: list[list[int]] = []
        for parts in parted:
            ids = list(next(encodings).ids)
            for mark in parts[1::2]:
                ids += [*(spelled if mark else ()), *next(encodings).ids]
            found.append(ids)
        return found

    @property
    def _specials(self) -> dict[str, int]:
        """Special tokens that stand for no text, and their ids."""
        masks = {} if self.mask_id is None else {MASK: self.mask_id}
        return {**dict(zip(self.kinds, self.meta_ids, strict=True)), END_OF_TEXT: self.eos_id, **masks}

    def _joined(self, ids: Iterable[int]) -> bytes:
        """The bytes that `ids` stand for."""
        return b"".join(map(self._bytes.__getitem__, ids))

    @functools.cached_property
    def _parsing(self) -> Tokenizer:
        """A second copy, because whether special tokens are parsed is a state of the object."""
        return Tokenizer.from_str(self.to_json())

    @functools.cached_property
    def _bytes(self) -> dict[int, bytes]:
        """What each id stands for; nothing for <|meta|>, <|endoftext|> and <|mask|>."""
        vocabulary = self._plain.get_vocab(with_added_tokens=False)
        added = self._plain.get_added_tokens_decoder()
        found = {id: settings.token_bytes(token, self._family) for token, id in vocabulary.items() if id not in added}
        return (
            found
            | {id: token.content.encode() for id, token in added.items()}
            | dict.fromkeys(self._specials.values(), b"")
        )

    @functools.cached_property
    def bytes_V(self) -> Tensor:
        """int64 [V]: how many UTF-8 bytes each id stands for, 0 for special tokens and unused ids.

        Their sum over `encode(text)` is the length of the text in bytes.
        """
        bytes_V = torch.zeros(self.vocab_size, dtype=torch.int64)
        for id, content in self._bytes.items():
            bytes_V[id] = len(content)
        return bytes_V

    @functools.cached_property
    def punctuation_ids(self) -> tuple[int, ...]:
        """The ids whose text ends in one of `. , ; : ! ?` or a line break: places for meta-tokens."""
        return self.ending_in(PUNCTUATION)

    def ending_in(self, texts: Sequence[str]) -> tuple[int, ...]:
        """Return the ids whose text ends in one of `texts`."""
        ends = tuple(text.encode() for text in texts)
        return tuple(id for id, content in sorted(self._bytes.items()) if content.endswith(ends))

    def fingerprint(self) -> str:
        """32 hex digits that stand for everything the tokenizer does."""
        canonical = json.dumps(json.loads(self.to_json()), sort_keys=True)
        return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


def _special(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with special tokens that no text spells."""
    known = [special for special in (*SPECIALS, MASK) if tokenizer.token_to_id(special) is not None]
    known += list(known_kinds(tokenizer.get_vocab(with_added_tokens=True)))[1:]
    tokenizer.add_special_tokens([AddedToken(special, special=True, normalized=False) for special in known])
    tokenizer.encode_special_tokens = True
    return tokenizer
